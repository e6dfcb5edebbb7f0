import { describe, expect, it } from 'vitest';
import type { IncomingMessage, Intake } from '../../broker/access.ts';
import { deviceIntake } from '../../broker/authorize.ts';
import {
  DeviceClient,
  type DeviceParts,
  type DevicePublication,
} from '../../broker/device-client.ts';
import type { OutgoingMessage } from '../../broker/message.ts';
import type { Session } from '../../broker/session.ts';

const DEVICE = {
  kind: 'device' as const,
  keyId: 'A1b2C3d4',
  organization: 'acme',
  organizationId: 1,
  device: 'boiler-7',
  deviceId: 7,
};

/** A connected device whose streams are wanted as `wanted` says. */
function createDevice(wanted: Set<string>) {
  const accepted: DevicePublication[] = [];
  const sent: OutgoingMessage[] = [];
  const asked: string[] = [];
  const fanOut = {
    generation: 1,
    isWanted(topic: string) {
      asked.push(topic);
      return wanted.has(topic);
    },
    publish(message: OutgoingMessage) {
      sent.push(message);
      return null;
    },
  };
  const parts = {
    ingest: {
      openLane: () => 'lane',
      closeLane: () => undefined,
      accept(_lane: unknown, publication: DevicePublication) {
        accepted.push(publication);
        return true;
      },
    },
    fanOut,
    opened: () => undefined,
  } as unknown as DeviceParts;
  const client = new DeviceClient(DEVICE, 60, parts);
  client.opened({ peer: { address: '192.0.2.7' } } as unknown as Session);
  return {
    accepted,
    sent,
    asked,
    fanOut,
    publish(topic: string, qos: 0 | 1 = 1) {
      const message: IncomingMessage = {
        topic,
        payload: Buffer.from('x'),
        qos,
        retain: false,
        acknowledge: () => undefined,
      };
      client.take(client.authorize(topic) as Intake, message);
      return accepted.at(-1) as DevicePublication;
    },
  };
}

describe('a topic of a device', () => {
  it.each([
    ['data', 'data', null],
    ['data/temp', 'scalar', 'temp'],
    ['senml', 'senml', null],
    ['event/door', 'event', 'door'],
    ['log', 'log', null],
    ['hello', 'hello', null],
  ])('%s is read as %s of %s', (rest, channel, name) => {
    for (const root of ['v1/me/', 'v1/acme/boiler-7/']) {
      const word = rest.split('/')[0];
      expect(deviceIntake(root + rest, DEVICE)?.intake).toEqual({
        channel,
        name,
        refusal: null,
        word,
      });
    }
  });

  it.each(['ack', 'cfg', 'key'])('%s is acknowledged and not read yet', (rest) => {
    const intake = deviceIntake(`v1/me/${rest}`, DEVICE)?.intake;
    expect(intake).toMatchObject({ channel: 'refused', refusal: { code: 'unknown_channel' } });
  });
});

describe('a publication of a device', () => {
  it.each([
    ['data', 'data'],
    ['data/temp', 'data'],
    ['senml', 'data'],
    ['event/door', 'event/door'],
    ['log', 'log'],
  ])('on %s is shown on %s, when somebody wants it', (rest, stream) => {
    const topic = `v1/acme/boiler-7/${stream}`;
    const device = createDevice(new Set([topic]));
    const publication = device.publish(`v1/me/${rest}`);
    expect(publication.isWanted()).toBe(true);
    publication.acknowledge(Buffer.from('{"ts":1}'));
    expect(device.sent).toEqual([
      { topic, payload: Buffer.from('{"ts":1}'), qos: 1, retain: false },
    ]);
  });

  it('is shown to nobody when nobody wants it, or nothing is to be shown', () => {
    const device = createDevice(new Set(['v1/acme/boiler-7/event/door']));
    for (const rest of ['data', 'event/window', 'log']) {
      const publication = device.publish(`v1/me/${rest}`);
      expect(publication.isWanted(), rest).toBe(false);
      publication.acknowledge(Buffer.from('{}'));
    }
    device.publish('v1/me/event/door').acknowledge(null);
    expect(device.sent).toEqual([]);
  });

  it('asks again who wants the data stream only when subscriptions change', () => {
    const wanted = new Set<string>();
    const device = createDevice(wanted);
    for (let round = 0; round < 3; round += 1) device.publish('v1/me/data', 0).isWanted();
    expect(device.asked).toHaveLength(1);
    wanted.add('v1/acme/boiler-7/data');
    device.fanOut.generation += 1;
    expect(device.publish('v1/me/data', 0).isWanted()).toBe(true);
    expect(device.asked).toHaveLength(2);
  });
});

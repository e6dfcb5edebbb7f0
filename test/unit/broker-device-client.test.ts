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
  expiresAt: null,
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
  const answers: [string, unknown, () => void][] = [];
  const told: [string, unknown][] = [];
  const refused: string[] = [];
  const closed: string[] = [];
  const state = { isQuarantined: false };
  const retained = new Map<string, OutgoingMessage>();
  const greeted: (() => void)[] = [];
  let acknowledged = 0;
  const answered = (channel: string, answer: unknown): Promise<void> =>
    new Promise((resolve) => void answers.push([channel, answer, resolve]));
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
      isQuarantined: () => state.isQuarantined,
      accept(_lane: unknown, publication: DevicePublication) {
        accepted.push(publication);
        return true;
      },
    },
    fanOut,
    retained: (topic: string) => retained.get(topic) ?? null,
    greet: () => new Promise<void>((resolve) => void greeted.push(resolve)),
    answers: {
      acknowledged: (_device: unknown, ack: unknown) => answered('ack', ack),
      reported: (_device: unknown, report: unknown) => answered('cfg', report),
      async keyRequested(_device: unknown, request: unknown, isPrivate: boolean) {
        await answered('key', { ...(request as object), isPrivate });
        return { st: 'no', code: 'unasked' };
      },
    },
    opened: () => undefined,
    refused: (_session: unknown, code: string) => void refused.push(code),
  } as unknown as DeviceParts;
  const client = new DeviceClient(DEVICE, 60, parts);
  client.opened({
    peer: { address: '192.0.2.7', transport: 'tcp' },
    send: (topic: string, message: unknown) => void told.push([topic, message]),
    close: (reason: string) => void closed.push(reason),
  } as unknown as Session);
  return {
    client,
    retained,
    greeted,
    accepted,
    sent,
    asked,
    fanOut,
    answers,
    told,
    refused,
    closed,
    state,
    acknowledgedCount: () => acknowledged,
    publish(topic: string, qos: 0 | 1 = 1, payload = 'x') {
      const message: IncomingMessage = {
        topic,
        payload: Buffer.from(payload),
        qos,
        retain: false,
        acknowledge: () => void (acknowledged += 1),
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
    ['ack', 'ack', null],
    ['cfg', 'cfg', null],
    ['key', 'key', null],
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

describe('an answer of a device', () => {
  const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

  it.each([
    ['ack', '{"id":7,"st":"ok"}', { id: 7, st: 'ok' }],
    ['cfg', '{"v":3,"ok":true}', { v: 3, ok: true }],
  ])('on %s is acknowledged once it is stored, and then shown', async (channel, payload, read) => {
    const topic = `v1/acme/boiler-7/${channel}`;
    const device = createDevice(new Set([topic]));
    device.publish(`v1/me/${channel}`, 1, payload);
    const [answer] = device.answers;
    expect(answer?.slice(0, 2)).toEqual([channel, read]);
    await settle();
    expect([device.acknowledgedCount(), device.sent]).toEqual([0, []]);
    answer?.[2]();
    await settle();
    expect(device.acknowledgedCount()).toBe(1);
    expect(device.sent).toEqual([{ topic, payload: Buffer.from(payload), qos: 1, retain: false }]);
  });

  it('on key is told to the device alone and shown to nobody', async () => {
    const device = createDevice(new Set(['v1/acme/boiler-7/key', 'v1/acme/boiler-7/in/key']));
    device.publish('v1/me/key', 1, '');
    expect(device.answers[0]?.[1]).toEqual({ isPrivate: false });
    device.answers[0]?.[2]();
    await settle();
    expect(device.told).toEqual([['v1/acme/boiler-7/in/key', { st: 'no', code: 'unasked' }]]);
    expect([device.acknowledgedCount(), device.sent]).toEqual([1, []]);
  });

  it.each([
    ['ack', '{"id":0,"st":"ok"}', 'bad_type'],
    ['ack', '{"id":1,"st":"maybe"}', 'bad_type'],
    ['ack', '{"id":1', 'bad_json'],
    ['cfg', '{"v":1}', 'bad_type'],
    ['key', '[]', 'bad_type'],
  ])('on %s that cannot be read, %s, goes to quarantine as %s', (channel, payload, code) => {
    const device = createDevice(new Set());
    const publication = device.publish(`v1/me/${channel}`, 1, payload);
    expect(publication).toMatchObject({ channel: 'refused', word: channel, refusal: { code } });
    expect(device.answers).toEqual([]);
  });

  it('of a device in quarantine is believed by nobody, and kept', () => {
    const device = createDevice(new Set());
    device.state.isQuarantined = true;
    const publication = device.publish('v1/me/ack', 1, '{"id":7,"st":"ok"}');
    expect(publication).toMatchObject({ channel: 'refused', refusal: { code: 'forbidden' } });
    expect(device.answers).toEqual([]);
  });

  it('beyond a hundred at once is lost at QoS 0 and ends the connection at QoS 1', () => {
    const device = createDevice(new Set());
    for (let count = 0; count < 100; count += 1) {
      device.publish('v1/me/ack', 0, '{"id":7,"st":"run"}');
    }
    expect([device.answers.length, device.refused]).toEqual([100, []]);
    device.publish('v1/me/ack', 0, '{"id":7,"st":"run"}');
    expect([device.answers.length, device.refused, device.closed]).toEqual([100, ['rate'], []]);
    device.publish('v1/me/ack', 1, '{"id":7,"st":"run"}');
    expect([device.answers.length, device.closed]).toEqual([100, ['rate']]);
  });
});

describe('what is retained for a device', () => {
  const message = (topic: string, text: string): OutgoingMessage => ({
    topic,
    payload: Buffer.from(text),
    qos: 1,
    retain: true,
  });
  const SLOT = 'v1/acme/boiler-7/in/cmd';
  const CONFIGURATION = 'v1/acme/boiler-7/in/cfg';
  const read = async (found: Iterable<OutgoingMessage> | AsyncIterable<OutgoingMessage>) => {
    const texts: string[] = [];
    for await (const { payload } of found) texts.push(payload.toString());
    return texts;
  };

  it('comes at once, but for the slot, which comes behind the greeting as it stands by then', async () => {
    const { client, retained, greeted } = createDevice(new Set());
    retained.set(SLOT, message(SLOT, 'old'));
    retained.set(CONFIGURATION, message(CONFIGURATION, 'cfg'));
    expect(await read(client.retained(CONFIGURATION))).toEqual(['cfg']);
    let texts: string[] | null = null;
    const reading = read(client.retained(SLOT)).then((all) => (texts = all));
    await new Promise((resolve) => setImmediate(resolve));
    expect(texts).toBeNull();
    expect(greeted).toHaveLength(1);
    retained.set(SLOT, message(SLOT, 'new'));
    greeted[0]?.();
    await reading;
    expect(texts).toEqual(['new']);
  });

  it('asks for no greeting when nothing stands in the slot', async () => {
    const { client, greeted } = createDevice(new Set());
    expect(await read(client.retained(SLOT))).toEqual([]);
    expect(greeted).toEqual([]);
  });
});

import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { closeProbes, Probe, unique } from '../support/probe.ts';
import { startTarget, type Target } from '../support/target.ts';
import { connectFrame, frame, publishFrame, type Piece } from '../support/wire.ts';

let target: Target;
beforeAll(async () => {
  target = await startTarget();
});
afterEach(closeProbes);
afterAll(() => target.stop());

/** Sends bytes as the first ones of a connection, and expects its end without any answer. */
async function expectSilentEnd(...bytes: Uint8Array[]): Promise<void> {
  const client = await Probe.open(target.url);
  client.sendBytes(...bytes);
  await client.closed();
  expect(client.raw.received).toEqual([]);
}

const CLEAN = 0x02;
const WILL = 0x04;
const WILL_RETAIN = 0x20;
const PASSWORD = 0x40;
const USERNAME = 0x80;

describe('CONNECT', () => {
  it('comes first, or the connection ends [MQTT-3.1.0-1]', async () => {
    await expectSilentEnd(frame(0xc0));
    await expectSilentEnd(publishFrame(0, 'a', null));
    await expectSilentEnd(frame(0x82, [0, 1], 'a', [0]));
    await expectSilentEnd(frame(0xe0));
  });

  it('comes once, or the connection ends [MQTT-3.1.0-2]', async () => {
    const client = await Probe.connect(target.url);
    client.sendBytes(connectFrame({ payload: ['again'] }));
    await client.closed();
    const both = await Probe.open(target.url);
    const connect = connectFrame({ payload: [unique('both')] });
    both.sendBytes(connect, connect);
    await both.closed();
  });

  it('with another protocol name ends the connection [MQTT-3.1.2-1]', async () => {
    for (const name of ['MQTX', 'mqtt', '', 'HTTP', 'MQTTMQTT']) {
      await expectSilentEnd(connectFrame({ name, payload: ['id'] }));
    }
  });

  it('with another protocol level is answered 1, and the connection ends [MQTT-3.1.2-2] [MQTT-3.2.2-5]', async () => {
    for (const level of [0, 1, 2, 5, 6, 127, 0x83, 0x84]) {
      const client = await Probe.open(target.url);
      // The properties of MQTT 5, of which there are none, are one byte before the payload.
      const properties: Piece[] = level === 5 ? [[0]] : [];
      client.sendBytes(connectFrame({ level, payload: [...properties, unique('level')] }));
      expect(await client.take('connack')).toMatchObject({ returnCode: 1, sessionPresent: false });
      await client.closed();
    }
  });

  it('with the reserved flag ends the connection [MQTT-3.1.2-3]', async () => {
    await expectSilentEnd(connectFrame({ flags: CLEAN | 1, payload: ['id'] }));
    await expectSilentEnd(connectFrame({ flags: 1, payload: ['id'] }));
  });

  it('with a will flag and without a will ends the connection [MQTT-3.1.2-9]', async () => {
    await expectSilentEnd(connectFrame({ flags: CLEAN | WILL, payload: ['id'] }));
    await expectSilentEnd(connectFrame({ flags: CLEAN | WILL, payload: ['id', 'topic'] }));
  });

  it('with a will and without a will flag ends the connection [MQTT-3.1.2-11]', async () => {
    await expectSilentEnd(connectFrame({ payload: ['id', 'topic', 'will'] }));
  });

  it('with a will QoS and without a will flag ends the connection [MQTT-3.1.2-13]', async () => {
    for (const qos of [0x08, 0x10, 0x18]) {
      await expectSilentEnd(connectFrame({ flags: CLEAN | qos, payload: ['id'] }));
    }
  });

  it('with a will QoS of 3 ends the connection [MQTT-3.1.2-14]', async () => {
    const flags = CLEAN | WILL | 0x18;
    await expectSilentEnd(connectFrame({ flags, payload: ['id', 'topic', 'will'] }));
  });

  it('with will retain and without a will flag ends the connection [MQTT-3.1.2-15]', async () => {
    await expectSilentEnd(connectFrame({ flags: CLEAN | WILL_RETAIN, payload: ['id'] }));
  });

  it('with a user name or password that its flags do not name ends the connection [MQTT-3.1.2-18] [MQTT-3.1.2-20]', async () => {
    await expectSilentEnd(connectFrame({ payload: ['id', 'user'] }));
    await expectSilentEnd(connectFrame({ flags: CLEAN | USERNAME, payload: ['id', 'user', 'pw'] }));
  });

  it('without the user name or password that its flags name ends the connection [MQTT-3.1.2-19] [MQTT-3.1.2-21]', async () => {
    await expectSilentEnd(connectFrame({ flags: CLEAN | USERNAME, payload: ['id'] }));
    const both = CLEAN | USERNAME | PASSWORD;
    await expectSilentEnd(connectFrame({ flags: both, payload: ['id', 'user'] }));
  });

  it('with a password and without a user name ends the connection [MQTT-3.1.2-22]', async () => {
    await expectSilentEnd(connectFrame({ flags: CLEAN | PASSWORD, payload: ['id', 'pw'] }));
  });

  it('has its fields in the order of the standard [MQTT-3.1.3-1]', async () => {
    const topic = unique('order');
    const subscriber = await Probe.connect(target.url);
    await subscriber.subscribe(topic);
    const client = await Probe.open(target.url);
    const flags = CLEAN | WILL | USERNAME | PASSWORD;
    client.sendBytes(connectFrame({ flags, payload: [unique('id'), topic, 'last', 'user', 'pw'] }));
    expect(await client.take('connack')).toMatchObject({ returnCode: 0 });
    client.drop();
    expect(await subscriber.message()).toMatchObject({ topic, payload: 'last' });
  });

  it('without a client identifier ends the connection [MQTT-3.1.3-3]', async () => {
    await expectSilentEnd(connectFrame({ payload: [] }));
  });

  it('that breaks a rule is never answered with CONNACK [MQTT-3.1.4-1] [MQTT-3.2.2-6]', async () => {
    const valid = connectFrame({ payload: ['id'] });
    await expectSilentEnd(frame(0x10, valid.subarray(2, valid.length - 1)));
    await expectSilentEnd(frame(0x10, valid.subarray(2), [0]));
    await expectSilentEnd(frame(0x10));
    await expectSilentEnd(frame(0x10, 'MQTT'));
    await expectSilentEnd(frame(0x10, 'MQTT', [4, CLEAN, 0]));
  });

  it('that is right is answered with CONNACK 0, before anything else [MQTT-3.1.4-4] [MQTT-3.2.0-1]', async () => {
    const client = await Probe.open(target.url);
    client.sendBytes(
      connectFrame({ payload: [unique('first')] }),
      frame(0x82, [0, 1], 'a', [0]),
      frame(0xc0),
    );
    expect(await client.raw.next()).toMatchObject({ cmd: 'connack', returnCode: 0 });
  });

  it('of MQTT 3.1 is served too', async () => {
    const client = await Probe.open(target.url);
    client.sendBytes(connectFrame({ name: 'MQIsdp', level: 3, payload: [unique('old')] }));
    expect(await client.take('connack')).toMatchObject({ returnCode: 0 });
    await client.ping();
  });

  it('that is refused makes what follows it unread [MQTT-3.1.4-5]', async () => {
    const topic = unique('unread');
    const subscriber = await Probe.connect(target.url);
    await subscriber.subscribe(topic);
    const refused = await Probe.open(target.url);
    const packet = publishFrame(0, topic, null, Buffer.from('refused'));
    refused.sendBytes(connectFrame({ flags: 0, payload: [''] }), packet, packet);
    expect(await refused.take('connack')).toMatchObject({ returnCode: 2 });
    await refused.closed();
    const publisher = await Probe.connect(target.url);
    await publisher.publish(topic, 'let in');
    expect((await subscriber.message()).payload).toBe('let in');
  });
});

describe('client identifier', () => {
  it('of 1 to 23 letters and digits is let in [MQTT-3.1.3-5]', async () => {
    for (const clientId of ['0', 'Z', 'abcdefghijklmnopqrstuvw', 'ABCDEFGHIJKLMNOPQRSTUVW']) {
      const client = await Probe.open(target.url);
      expect(await client.login({ clientId })).toMatchObject({ returnCode: 0 });
    }
  });

  it('longer than that, or of other characters, is let in too', async () => {
    for (const clientId of ['x'.repeat(1000), 'a b/c:ü#+$', '__proto__', '$SYS/x']) {
      const client = await Probe.open(target.url);
      expect(await client.login({ clientId })).toMatchObject({ returnCode: 0 });
      await client.ping();
    }
  });

  it('of no bytes with clean session gets one of its own [MQTT-3.1.3-6] [MQTT-3.1.3-7]', async () => {
    const clients = [await Probe.open(target.url), await Probe.open(target.url)];
    for (const client of clients) {
      expect(await client.login({ clientId: '', clean: true })).toMatchObject({ returnCode: 0 });
    }
    for (const client of clients) await client.ping();
  });

  it('of no bytes without clean session is answered 2, and the connection ends [MQTT-3.1.3-8] [MQTT-3.1.3-9]', async () => {
    const client = await Probe.open(target.url);
    client.sendBytes(connectFrame({ flags: 0, payload: [''] }));
    expect(await client.take('connack')).toMatchObject({ returnCode: 2, sessionPresent: false });
    await client.closed();
  });

  it('that is connected already closes the older connection [MQTT-3.1.4-2]', async () => {
    const clientId = unique('twice');
    const older = await Probe.connect(target.url, { clientId });
    const newer = await Probe.connect(target.url, { clientId });
    await older.closed();
    await newer.ping();
  });

  it.each([['clean', CLEAN] as const, ['kept', 0] as const])(
    'for which fifty connections race is that of one of them in the end: %s session [MQTT-3.1.4-2]',
    async (_, flags) => {
      const clientId = unique('raced');
      const first = await Probe.connect(target.url, { clientId, clean: flags !== 0 });
      const probes = await Promise.all(Array.from({ length: 50 }, () => Probe.open(target.url)));
      for (const probe of probes) probe.sendBytes(connectFrame({ flags, payload: [clientId] }));
      await first.closed();
      for (const probe of probes) await probe.take('connack');
      // The last to come has been let in; the others are closed by and by.
      const open = () => probes.filter(({ raw }) => !raw.isClosed());
      await eventually('one is left', () => open().length <= 1);
      await delay(200);
      expect(open()).toHaveLength(1);
    },
  );

  it('names the session [MQTT-3.1.3-2]', async () => {
    const [one, other] = [unique('one'), unique('other')];
    const topic = unique('named');
    const client = await Probe.connect(target.url, { clientId: one, clean: false });
    await client.subscribe(topic);
    await client.disconnect();
    const stranger = await Probe.open(target.url);
    const connack = await stranger.login({ clientId: other, clean: false });
    expect(connack.sessionPresent).toBe(false);
    await stranger.publish(topic, 'for one');
    const again = await Probe.open(target.url);
    expect(await again.login({ clientId: one, clean: false })).toMatchObject({
      sessionPresent: true,
    });
    expect((await again.message()).payload).toBe('for one');
  });
});

describe('CONNACK', () => {
  it('says of a clean session that none is present [MQTT-3.2.2-1]', async () => {
    const clientId = unique('clean');
    await (await Probe.connect(target.url, { clientId, clean: false })).disconnect();
    const client = await Probe.open(target.url);
    expect(await client.login({ clientId })).toMatchObject({ sessionPresent: false });
  });

  it('says of a kept session that it is present, subscriptions or not [MQTT-3.2.2-2]', async () => {
    const clientId = unique('kept');
    await (await Probe.connect(target.url, { clientId, clean: false })).disconnect();
    const client = await Probe.open(target.url);
    expect(await client.login({ clientId, clean: false })).toMatchObject({ sessionPresent: true });
    await client.subscribe('a');
    await client.disconnect();
    const again = await Probe.open(target.url);
    expect(await again.login({ clientId, clean: false })).toMatchObject({ sessionPresent: true });
  });

  it('says of a new kept session that it is not present [MQTT-3.2.2-3]', async () => {
    const client = await Probe.open(target.url);
    const connack = await client.login({ clientId: unique('new'), clean: false });
    expect(connack).toMatchObject({ returnCode: 0, sessionPresent: false });
  });

  it('of a refusal says that no session is present, although there is one [MQTT-3.2.2-4]', async () => {
    const clientId = unique('stored');
    await (await Probe.connect(target.url, { clientId, clean: false })).disconnect();
    const client = await Probe.open(target.url);
    client.sendBytes(connectFrame({ level: 5, flags: 0, payload: [[0], clientId] }));
    expect(await client.take('connack')).toMatchObject({ returnCode: 1, sessionPresent: false });
    await client.closed();
  });
});

describe('keep alive', () => {
  it('that is over by half ends the connection as if the network had failed [MQTT-3.1.2-24]', async () => {
    const topic = unique('silent');
    const subscriber = await Probe.connect(target.url);
    await subscriber.subscribe(topic);
    const will = { topic, payload: Buffer.from('failed'), qos: 1 as const, retain: false };
    const startedAt = performance.now();
    const client = await Probe.connect(target.url, { keepalive: 1, will });
    await client.closed();
    const silentMs = performance.now() - startedAt;
    expect(silentMs).toBeGreaterThan(1400);
    expect(silentMs).toBeLessThan(5000);
    expect((await subscriber.message()).payload).toBe('failed');
  });

  it('is counted from the last packet, whatever it was [MQTT-3.1.2-24]', async () => {
    const client = await Probe.connect(target.url, { keepalive: 2 });
    for (const [qos, count] of [
      [0, 2],
      [1, 2],
    ] as const) {
      for (let number = 0; number < count; number += 1) {
        await delay(1700);
        await client.publish(unique('alive'), '', { qos });
      }
    }
    await client.ping();
    expect(client.raw.isClosed()).toBe(false);
  });

  it('of 0 ends no connection [MQTT-3.1.2-24]', async () => {
    const client = await Probe.connect(target.url, { keepalive: 0 });
    await delay(2500);
    await client.ping();
  });

  it('is answered at once with PINGRESP [MQTT-3.12.4-1]', async () => {
    const client = await Probe.connect(target.url);
    for (let number = 0; number < 5; number += 1) await client.ping();
    client.sendBytes(frame(0xc0), frame(0xc0), frame(0xc0));
    for (let number = 0; number < 3; number += 1) await client.take('pingresp');
  });
});

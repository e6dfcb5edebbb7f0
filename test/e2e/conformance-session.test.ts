import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { closeProbes, Probe, unique } from '../support/probe.ts';
import { startTarget, type Target } from '../support/target.ts';
import { publishFrame } from '../support/wire.ts';

let target: Target;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'puback-sessions-'));
  target = await startTarget({ dataDir: folder });
});
afterEach(closeProbes);
afterAll(async () => {
  await target.stop();
  await rm(folder, { recursive: true, force: true });
});

const keep = (clientId: string): Promise<Probe> =>
  Probe.connect(target.url, { clientId, clean: false });

describe('a kept session', () => {
  it('goes on with its subscriptions after a reconnect [MQTT-3.1.2-4] [MQTT-4.1.0-1]', async () => {
    const [clientId, topic] = [unique('kept'), unique('topic')];
    const first = await keep(clientId);
    expect(await first.subscribe([topic, `${topic}/+`], 1)).toEqual([1, 1]);
    await first.disconnect();
    const again = await keep(clientId);
    await again.publish(topic, 'without SUBSCRIBE');
    await again.publish(`${topic}/x`, 'by a wildcard');
    expect(await again.messages(2)).toEqual(['without SUBSCRIBE', 'by a wildcard']);
  });

  it('keeps messages at QoS 1 and 2 for the time without a connection [MQTT-3.1.2-5] [MQTT-4.5.0-1]', async () => {
    const [clientId, topic] = [unique('away'), unique('topic')];
    const first = await keep(clientId);
    await first.subscribe(topic);
    await first.disconnect();
    const publisher = await Probe.connect(target.url);
    await publisher.publish(topic, 'one', { qos: 1 });
    await publisher.publish(topic, 'two', { qos: 2 });
    await publisher.publish(topic, 'three', { qos: 1 });
    const again = await keep(clientId);
    const first3 = [await again.message(), await again.message(), await again.message()];
    expect(first3.map(({ payload }) => payload)).toEqual(['one', 'two', 'three']);
    expect(first3.map(({ qos, dup, retain }) => ({ qos, dup, retain }))).toEqual(
      Array.from({ length: 3 }, () => ({ qos: 1, dup: false, retain: false })),
    );
  });

  it('ends with a clean one of the same name, and nothing of it comes back [MQTT-3.1.2-6] [MQTT-3.1.4-3]', async () => {
    const [clientId, topic] = [unique('discarded'), unique('topic')];
    const first = await keep(clientId);
    await first.subscribe(topic);
    await first.disconnect();
    const publisher = await Probe.connect(target.url);
    await publisher.publish(topic, 'queued');
    const clean = await Probe.connect(target.url, { clientId });
    await publisher.publish(topic, 'while clean');
    await clean.ping();
    await clean.disconnect();
    const again = await Probe.open(target.url);
    const connack = await again.login({ clientId, clean: false });
    expect(connack.sessionPresent).toBe(false);
    await again.subscribe(`${topic}/end`);
    await again.publish(topic, 'not subscribed any more');
    await again.publish(`${topic}/end`, 'end');
    expect(await again.messages(1)).toEqual(['end']);
  });

  it('of clean session lasts as long as its connection [MQTT-4.1.0-2]', async () => {
    const [clientId, topic] = [unique('short'), unique('topic')];
    const client = await Probe.connect(target.url, { clientId });
    await client.subscribe(topic);
    for (let number = 0; number < 3; number += 1) await client.publish(topic, String(number));
    expect(await client.messages(3)).toEqual(['0', '1', '2']);
    await client.disconnect();
    const again = await Probe.connect(target.url, { clientId });
    await again.subscribe(`${topic}/end`);
    await again.publish(topic, 'gone');
    await again.publish(`${topic}/end`, 'end');
    expect(await again.messages(1)).toEqual(['end']);
  });

  it('does not hold retained messages: they stay when it ends [MQTT-3.1.2-7]', async () => {
    const [clientId, topic] = [unique('ends'), unique('topic')];
    const client = await keep(clientId);
    await client.publish(topic, 'stays', { retain: true });
    await client.disconnect();
    await (await Probe.connect(target.url, { clientId })).disconnect();
    const late = await Probe.connect(target.url);
    await late.subscribe(topic);
    expect(await late.message()).toMatchObject({ payload: 'stays', retain: true });
  });

  it('gets unacknowledged messages again, with their identifiers, in their order and with DUP [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1]', async () => {
    const [clientId, topic] = [unique('resent'), unique('topic')];
    const first = await keep(clientId);
    await first.subscribe(topic);
    const publisher = await Probe.connect(target.url);
    for (let number = 1; number <= 5; number += 1) await publisher.publish(topic, String(number));
    const sent = [];
    while (sent.length < 5) sent.push(await first.message());
    first.acknowledge(sent[1]?.messageId);
    await first.ping();
    first.drop();
    await publisher.publish(topic, '6');
    const again = await keep(clientId);
    const unacknowledged = sent.filter((_, index) => index !== 1);
    for (const { payload, messageId } of unacknowledged) {
      expect(await again.message()).toMatchObject({ payload, messageId, dup: true, qos: 1 });
      again.acknowledge(messageId);
    }
    const last = await again.message();
    expect(last).toMatchObject({ payload: '6', dup: false });
    again.acknowledge(last.messageId);
    await again.ping();
    again.drop();
    const third = await keep(clientId);
    await publisher.publish(topic, 'nothing was left');
    expect(await third.messages(1)).toEqual(['nothing was left']);
  });

  it('is not sent a message again that is under way, as long as the connection lasts [MQTT-4.4.0-1]', async () => {
    const [clientId, topic] = [unique('patient'), unique('topic')];
    const client = await keep(clientId);
    await client.subscribe(topic);
    await client.publish(topic, 'one');
    await client.message();
    for (let number = 0; number < 3; number += 1) await client.ping();
    await client.publish(topic, 'two');
    expect((await client.message()).payload).toBe('two');
  });

  it('knows a QoS 2 identifier again after a reconnect [MQTT-4.3.3-2] [MQTT-3.1.2-4]', async () => {
    const [clientId, topic] = [unique('inbound'), unique('topic')];
    const subscriber = await Probe.connect(target.url);
    await subscriber.subscribe([topic, `${topic}/end`]);
    const packet = publishFrame(0x04, topic, 6, Buffer.from('once'));
    const again = Buffer.from(packet);
    again.writeUInt8(0x3c, 0);
    const first = await keep(clientId);
    first.sendBytes(packet);
    await first.take('pubrec');
    first.drop();
    const second = await keep(clientId);
    second.sendBytes(again);
    await second.take('pubrec');
    second.send({ cmd: 'pubrel', messageId: 6 });
    await second.take('pubcomp');
    await second.publish(`${topic}/end`, 'end');
    expect(await subscriber.messages(2)).toEqual(['once', 'end']);
  });

  it('moves to a newer connection of the same name with what is queued [MQTT-3.1.4-2]', async () => {
    const [clientId, topic] = [unique('moves'), unique('topic')];
    const older = await keep(clientId);
    await older.subscribe(topic);
    const publisher = await Probe.connect(target.url);
    await publisher.publish(topic, 'one');
    const { messageId } = await older.message();
    const newer = await keep(clientId);
    await older.closed();
    expect(await newer.message()).toMatchObject({ payload: 'one', messageId, dup: true });
    await publisher.publish(topic, 'two');
    expect((await newer.message()).payload).toBe('two');
  });
});

describe('a restart', () => {
  it('leaves sessions, subscriptions, queued and unacknowledged messages, and retained ones', async () => {
    const [clientId, topic] = [unique('restarted'), unique('topic')];
    const first = await keep(clientId);
    await first.subscribe([topic, `${topic}/+`]);
    await first.publish(topic, 'unacknowledged');
    const { messageId } = await first.message();
    first.drop();
    const publisher = await Probe.connect(target.url);
    await publisher.publish(`${topic}/x`, 'queued', { retain: true });
    await target.stop();
    target = await startTarget({ dataDir: folder });
    const again = await Probe.open(target.url);
    expect(await again.login({ clientId, clean: false })).toMatchObject({ sessionPresent: true });
    const resent = await again.message();
    expect(resent).toMatchObject({ payload: 'unacknowledged', messageId, dup: true });
    again.acknowledge(messageId);
    expect(await again.messages(1)).toEqual(['queued']);
    const late = await Probe.connect(target.url);
    await late.subscribe(`${topic}/#`);
    expect(await late.message()).toMatchObject({ payload: 'queued', retain: true });
  });
});

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { closeProbes, Probe, unique } from '../support/probe.ts';
import { startTarget, type Target } from '../support/target.ts';
import { frame, publishFrame, twoBytes } from '../support/wire.ts';

let target: Target;
beforeAll(async () => {
  target = await startTarget();
});
afterEach(closeProbes);
afterAll(() => target.stop());

const connect = (): Promise<Probe> => Probe.connect(target.url);

async function subscriberOf(filter: string | string[], qos: 0 | 1 | 2 = 1): Promise<Probe> {
  const subscriber = await connect();
  await subscriber.subscribe(filter, qos);
  return subscriber;
}

describe('DUP', () => {
  it('at QoS 0 ends the connection [MQTT-3.3.1-2]', async () => {
    const client = await connect();
    client.sendBytes(publishFrame(0x08, 'a', null));
    await client.closed();
  });

  it('of what came in is not handed on [MQTT-3.3.1-3]', async () => {
    const topic = unique('dup');
    const subscriber = await subscriberOf(topic);
    const publisher = await connect();
    for (const qos of [1, 2] as const) {
      await publisher.publish(topic, `at ${qos}`, { qos, dup: true });
      expect(await subscriber.message()).toMatchObject({ payload: `at ${qos}`, dup: false });
    }
  });
});

describe('QoS', () => {
  it('3 ends the connection [MQTT-3.3.1-4]', async () => {
    const client = await connect();
    client.sendBytes(publishFrame(0x06, 'a', 1));
    await client.closed();
  });

  it('0 is answered with nothing, 1 with PUBACK, 2 with PUBREC [MQTT-3.3.4-1]', async () => {
    const client = await connect();
    const message = { cmd: 'publish', topic: 'a', payload: '', retain: false, dup: false } as const;
    client.send({ ...message, qos: 0 }, { cmd: 'pingreq' });
    expect((await client.raw.next()).cmd).toBe('pingresp');
    client.send({ ...message, qos: 1, messageId: 7 });
    expect(await client.raw.next()).toMatchObject({ cmd: 'puback', messageId: 7 });
    client.send({ ...message, qos: 2, messageId: 8 });
    expect(await client.raw.next()).toMatchObject({ cmd: 'pubrec', messageId: 8 });
  });

  it('1 makes a new publication of a packet identifier once it is acknowledged, DUP or not [MQTT-4.3.2-2]', async () => {
    const topic = unique('again');
    const subscriber = await subscriberOf(topic);
    const publisher = await connect();
    await publisher.publish(topic, 'one', { messageId: 5 });
    await publisher.publish(topic, 'two', { messageId: 5 });
    await publisher.publish(topic, 'three', { messageId: 5, dup: true });
    expect(await subscriber.messages(3)).toEqual(['one', 'two', 'three']);
  });

  it('2 delivers a repeated PUBLISH once until PUBREL, and as a new one after PUBCOMP [MQTT-4.3.3-2]', async () => {
    const [topic, end] = [unique('twice'), unique('end')];
    const subscriber = await subscriberOf([topic, end]);
    const publisher = await connect();
    const id = 9;
    const send = (payload: string, dup: boolean): void =>
      publisher.send({
        ...{ cmd: 'publish', topic, payload, qos: 2, dup },
        ...{ retain: false, messageId: id },
      });
    for (const dup of [false, true, true]) {
      send('once', dup);
      expect((await publisher.take('pubrec')).messageId).toBe(id);
    }
    for (let repeat = 0; repeat < 2; repeat += 1) {
      publisher.send({ cmd: 'pubrel', messageId: id });
      expect((await publisher.take('pubcomp')).messageId).toBe(id);
    }
    send('new', false);
    await publisher.take('pubrec');
    publisher.send({ cmd: 'pubrel', messageId: id });
    await publisher.take('pubcomp');
    await publisher.publish(end, 'end');
    expect(await subscriber.messages(3)).toEqual(['once', 'new', 'end']);
  });

  it('2 answers a PUBREL of an unknown identifier with PUBCOMP [MQTT-4.3.3-2]', async () => {
    const client = await connect();
    client.sendBytes(frame(0x62, twoBytes(77)));
    expect((await client.take('pubcomp')).messageId).toBe(77);
  });

  it('of a message is the lower one of publisher and subscription [MQTT-3.8.4-6]', async () => {
    const topic = unique('lower');
    const publisher = await connect();
    for (const granted of [0, 1] as const) {
      const subscriber = await subscriberOf(topic, granted);
      for (const published of [0, 1, 2] as const) {
        await publisher.publish(topic, '', { qos: published });
        const { qos, messageId } = await subscriber.message();
        expect(qos).toBe(Math.min(granted, published));
        if (qos === 1) subscriber.acknowledge(messageId);
      }
      subscriber.drop();
    }
  });
});

describe('topic name', () => {
  it('that is missing or cut off ends the connection [MQTT-3.3.2-1]', async () => {
    for (const bytes of [
      Buffer.from([0x30, 0]),
      Buffer.from([0x30, 1, 0]),
      Buffer.from([0x32, 2, 0, 0]),
      frame(0x30, [0, 5, 0x61]),
    ]) {
      const client = await connect();
      client.sendBytes(bytes);
      await client.closed();
    }
  });

  it('of a delivery is that of the publication, and matches the filter [MQTT-3.3.2-3] [MQTT-4.7.3-4]', async () => {
    const root = unique('exact');
    const subscriber = await subscriberOf([`${root}/+`, `${root}/`, `${root}/é`, `/${root}`]);
    const publisher = await connect();
    // The first six match none of the filters; é is written with a combining accent there.
    const strangers = [root, `${root}/a/b`, `${root.toUpperCase()}/a`, `${root}//`, `//${root}`];
    for (const topic of [...strangers, `${root}/é/x`]) await publisher.publish(topic, 'no');
    const names = [`${root}/a`, `${root}/`, `/${root}`, `${root}/e\u0301`, `${root}/ b c`];
    for (const topic of names) await publisher.publish(topic, 'yes');
    const delivered: string[] = [];
    while (delivered.length < names.length) {
      const { topic, payload, messageId } = await subscriber.message();
      expect(payload).toBe('yes');
      subscriber.acknowledge(messageId);
      // Overlapping filters may give one copy each.
      if (delivered.at(-1) !== topic) delivered.push(topic);
    }
    expect(delivered).toEqual(names);
  });
});

describe('a message', () => {
  it('goes to every client with a matching subscription, its publisher among them [MQTT-4.5.0-1]', async () => {
    const topic = unique('all');
    const clients = await Promise.all([1, 2, 3, 4].map(() => connect()));
    for (const client of clients) await client.subscribe(topic);
    await clients[0]?.publish(topic, 'to all');
    for (const client of clients) expect(await client.messages(1)).toEqual(['to all']);
  });

  it('of no bytes and of any bytes arrives as it was sent', async () => {
    const topic = unique('bytes');
    const subscriber = await subscriberOf(topic);
    const publisher = await connect();
    const bytes = Buffer.from(Array.from({ length: 40_000 }, (_, at) => at & 0xff));
    publisher.sendBytes(publishFrame(2, topic, 1), publishFrame(2, topic, 2, bytes));
    expect((await subscriber.take('publish')).payload).toEqual(Buffer.alloc(0));
    expect((await subscriber.take('publish')).payload).toEqual(bytes);
  });

  it('comes to a subscriber in the order of its publisher, topic by topic and QoS by QoS [MQTT-4.6.0-5] [MQTT-4.6.0-6]', async () => {
    const topic = unique('order');
    const subscriber = await subscriberOf(topic);
    const publisher = await connect();
    const packets = Array.from({ length: 300 }, (_, number) =>
      publishFrame(2, topic, number + 1, Buffer.from(String(number))),
    );
    publisher.sendBytes(...packets);
    const numbers = await subscriber.messages(300);
    expect(numbers).toEqual(packets.map((_, number) => String(number)));
  });

  it('is acknowledged in the order in which it came [MQTT-4.6.0-2]', async () => {
    const client = await connect();
    client.sendBytes(...[5, 3, 9, 1, 4].map((id) => publishFrame(2, 'order', id)));
    const ids: number[] = [];
    while (ids.length < 5) ids.push((await client.take('puback')).messageId ?? 0);
    expect(ids).toEqual([5, 3, 9, 1, 4]);
  });

  it('at QoS 2 is acknowledged in the order in which it came [MQTT-4.6.0-3]', async () => {
    const client = await connect();
    client.sendBytes(...[5, 3, 9, 1, 4].map((id) => publishFrame(4, 'order', id)));
    const ids: number[] = [];
    while (ids.length < 5) ids.push((await client.take('pubrec')).messageId ?? 0);
    expect(ids).toEqual([5, 3, 9, 1, 4]);
  });

  it('that was delivered is acknowledged by a client that knows no such identifier, to no effect [MQTT-4.5.0-2]', async () => {
    const client = await connect();
    client.acknowledge(4711);
    client.sendBytes(frame(0x50, twoBytes(4711)), frame(0x70, twoBytes(4711)));
    await client.publish('a', 'on it goes');
  });
});

describe('RETAIN', () => {
  it('keeps a message and its QoS for those who subscribe later [MQTT-3.3.1-5] [MQTT-3.3.1-8]', async () => {
    const publisher = await connect();
    for (const qos of [0, 1] as const) {
      const topic = unique('kept');
      await publisher.publish(topic, 'kept', { qos, retain: true });
      await publisher.ping();
      const late = await subscriberOf(topic);
      expect(await late.message()).toMatchObject({ topic, payload: 'kept', qos, retain: true });
    }
  });

  it('gives a new subscription the last message of every matching topic [MQTT-3.3.1-6]', async () => {
    const root = unique('last');
    const publisher = await connect();
    for (const [name, payload] of Object.entries({ a: 'old', b: 'b', 'c/d': 'deep' })) {
      await publisher.publish(`${root}/${name}`, payload, { retain: true });
    }
    await publisher.publish(`${root}/a`, 'new', { retain: true });
    const level = await subscriberOf(`${root}/+`);
    expect((await level.messages(2)).toSorted()).toEqual(['b', 'new']);
    const tree = await subscriberOf(`${root}/#`);
    expect((await tree.messages(3)).toSorted()).toEqual(['b', 'deep', 'new']);
  });

  it('at QoS 0 takes the place of what was kept [MQTT-3.3.1-7]', async () => {
    const topic = unique('replaced');
    const publisher = await connect();
    await publisher.publish(topic, 'old', { retain: true });
    await publisher.publish(topic, 'new', { qos: 0, retain: true });
    await publisher.ping();
    const late = await subscriberOf(topic);
    expect(await late.message()).toMatchObject({ payload: 'new', retain: true });
  });

  it('is 0 for those who subscribed before [MQTT-3.3.1-9]', async () => {
    const topic = unique('live');
    const early = await subscriberOf(topic);
    const publisher = await connect();
    await publisher.publish(topic, 'live', { retain: true });
    expect(await early.message()).toMatchObject({ payload: 'live', retain: false });
  });

  it('with no bytes is delivered as usual, and removes what was kept [MQTT-3.3.1-10] [MQTT-3.3.1-11]', async () => {
    const [topic, end] = [unique('removed'), unique('end')];
    const publisher = await connect();
    await publisher.publish(topic, 'kept', { retain: true });
    await publisher.publish(end, 'end', { retain: true });
    const early = await subscriberOf(topic);
    expect((await early.message()).retain).toBe(true);
    await publisher.publish(topic, '', { retain: true });
    expect(await early.message()).toMatchObject({ payload: '', retain: false });
    const late = await subscriberOf([topic, end]);
    expect(await late.message()).toMatchObject({ topic: end });
    await publisher.publish(topic, 'live');
    expect(await late.message()).toMatchObject({ topic, payload: 'live', retain: false });
  });

  it('of 0 keeps nothing and removes nothing [MQTT-3.3.1-12]', async () => {
    const [topic, other] = [unique('plain'), unique('kept')];
    const publisher = await connect();
    await publisher.publish(topic, 'plain');
    await publisher.publish(other, 'kept', { retain: true });
    await publisher.publish(other, 'plain');
    await publisher.publish(other, '');
    const late = await subscriberOf([topic, other]);
    expect(await late.message()).toMatchObject({ topic: other, payload: 'kept', retain: true });
  });

  it('and SUBSCRIBE in one write give one copy', async () => {
    const [topic, end] = [unique('one-write'), unique('end')];
    const client = await connect();
    client.sendBytes(
      publishFrame(0x03, topic, 1, Buffer.from('kept')),
      frame(0x82, twoBytes(2), topic, [1], end, [1]),
    );
    await client.take('suback');
    await client.publish(end, 'end');
    expect(await client.messages(2)).toEqual(['kept', 'end']);
  });
});

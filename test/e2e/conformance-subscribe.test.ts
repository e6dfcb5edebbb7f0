import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { closeProbes, Probe, unique } from '../support/probe.ts';
import { startTarget, type Target } from '../support/target.ts';
import { frame, lengthPrefixed, twoBytes } from '../support/wire.ts';

let target: Target;
beforeAll(async () => {
  target = await startTarget();
});
afterEach(closeProbes);
afterAll(() => target.stop());

const connect = (): Promise<Probe> => Probe.connect(target.url);

/** The one filter that the open broker refuses. */
const REFUSED = 'test/nosubscribe';

async function expectClosedBy(bytes: Uint8Array): Promise<void> {
  const client = await connect();
  client.sendBytes(bytes);
  await client.closed();
  expect(client.raw.received).toEqual([]);
}

describe('SUBSCRIBE', () => {
  it('without a filter ends the connection [MQTT-3.8.3-3]', async () => {
    await expectClosedBy(frame(0x82, twoBytes(1)));
    await expectClosedBy(frame(0x82));
  });

  it('with another QoS than 0, 1 and 2, or reserved bits, ends the connection [MQTT-3.8.3-4]', async () => {
    for (const qos of [3, 4, 0x41, 0x80, 0xff]) {
      await expectClosedBy(frame(0x82, twoBytes(1), 'a', [qos]));
      await expectClosedBy(frame(0x82, twoBytes(1), 'fine', [0], 'a', [qos]));
    }
    await expectClosedBy(frame(0x82, twoBytes(1), 'a'));
  });

  it('with wildcards is served [MQTT-3.8.3-2]', async () => {
    const client = await connect();
    const filters = ['#', '+', '+/+', '/+', '/#', 'a/+/b/#', '+/a', '$SYS/#', '/'];
    const granted = await client.subscribe(filters);
    expect(granted).toHaveLength(filters.length);
    expect(granted.every((code) => code <= 1)).toBe(true);
  });

  it('is answered with one SUBACK with a code for each filter, in their order [MQTT-3.8.4-1] [MQTT-3.8.4-4] [MQTT-3.8.4-5] [MQTT-3.9.3-1]', async () => {
    const client = await connect();
    const root = unique('codes');
    const subscriptions = [
      { topic: `${root}/0`, qos: 0 as const },
      { topic: REFUSED, qos: 1 as const },
      { topic: `${root}/1`, qos: 1 as const },
      { topic: REFUSED, qos: 0 as const },
      { topic: `${root}/00`, qos: 0 as const },
    ];
    client.send({ cmd: 'subscribe', messageId: 1, subscriptions });
    const { granted } = await client.take('suback');
    expect(granted).toEqual([0, 128, 1, 128, 0]);
    for (const name of ['0', '1', '00']) await client.publish(`${root}/${name}`, name);
    expect(await client.messages(3)).toEqual(['0', '1', '00']);
    expect(client.raw.received.some(({ cmd }) => cmd === 'suback')).toBe(false);
  });

  it('gets no other codes than 0, 1, 2 and 128, and QoS 1 where it asks for 2 [MQTT-3.9.3-2] [MQTT-3.8.4-5]', async () => {
    const client = await connect();
    expect(await client.subscribe(unique('qos'), 0)).toEqual([0]);
    expect(await client.subscribe(unique('qos'), 1)).toEqual([1]);
    expect([1, 2]).toContain((await client.subscribe(unique('qos'), 2))[0]);
    expect(await client.subscribe(REFUSED, 2)).toEqual([128]);
  });

  it('that is refused delivers nothing', async () => {
    const end = unique('end');
    const client = await connect();
    await client.subscribe([REFUSED, end]);
    await client.publish(REFUSED, 'refused');
    await client.publish(end, 'end');
    expect(await client.messages(1)).toEqual(['end']);
  });

  it('to a filter that is there replaces it, gives retained messages again and interrupts nothing [MQTT-3.8.4-3]', async () => {
    const topic = unique('replaced');
    const publisher = await connect();
    await publisher.publish(topic, 'kept', { retain: true });
    const subscriber = await connect();
    await subscriber.subscribe(topic, 1);
    expect(await subscriber.message()).toMatchObject({ payload: 'kept', retain: true, qos: 1 });
    await subscriber.subscribe(topic, 0);
    expect(await subscriber.message()).toMatchObject({ payload: 'kept', retain: true, qos: 0 });
    await publisher.publish(topic, 'live');
    expect(await subscriber.message()).toMatchObject({ payload: 'live', retain: false, qos: 0 });
    await publisher.publish(topic, 'more');
    expect((await subscriber.message()).payload).toBe('more');
  });

  it('with overlapping filters gets a message at the highest QoS of them [MQTT-3.3.5-1]', async () => {
    const root = unique('overlap');
    const subscriber = await connect();
    const subscriptions = [
      { topic: `${root}/#`, qos: 0 as const },
      { topic: `${root}/a`, qos: 1 as const },
      { topic: `${root}/+`, qos: 0 as const },
    ];
    subscriber.send({ cmd: 'subscribe', messageId: 1, subscriptions });
    await subscriber.take('suback');
    const publisher = await connect();
    await publisher.publish(`${root}/a`, 'overlap');
    await publisher.publish(`${root}/a`, 'end');
    const copies: number[] = [];
    for (;;) {
      const { payload, qos, messageId } = await subscriber.message();
      if (qos === 1) subscriber.acknowledge(messageId);
      if (payload === 'end') break;
      copies.push(qos);
    }
    expect(copies.filter((qos) => qos === 1)).toHaveLength(1);
  });

  it('of the same filter twice in one packet is one subscription', async () => {
    const topic = unique('same');
    const client = await connect();
    expect(await client.subscribe([topic, topic])).toEqual([1, 1]);
    await client.publish(topic, 'one');
    await client.publish(topic, 'end');
    expect(await client.messages(2)).toEqual(['one', 'end']);
  });
});

describe('wildcards', () => {
  const MATCHING: Record<string, [string[], string[]]> = {
    '#': [['a', 'a/b', '/', '/a'], []],
    '+': [['a'], ['a/b', '/a']],
    '+/+': [
      ['a/b', '/a', 'a/', '/'],
      ['a', 'a/b/c'],
    ],
    '/+': [
      ['/a', '/'],
      ['a', 'a/b'],
    ],
    'a/#': [
      ['a', 'a/', 'a/b', 'a/b/c'],
      ['ab', 'b/a'],
    ],
    'a/+/c': [
      ['a/b/c', 'a//c'],
      ['a/c', 'a/b/b/c', 'a/b/c/d'],
    ],
    'a/+': [
      ['a/', 'a/b'],
      ['a', 'a/b/c'],
    ],
    '+/b/#': [
      ['a/b', '/b/c', 'a/b/c/d'],
      ['b', 'a/c/b'],
    ],
  };

  it.each(Object.entries(MATCHING))(
    'match as the standard says: %s [MQTT-4.7.1-2] [MQTT-4.7.1-3]',
    async (filter, [matching, other]) => {
      // Below a root of its own, so that tests do not hear each other.
      const root = unique('match');
      const subscriber = await connect();
      await subscriber.subscribe([`${root}/${filter}`, `end/${root}`]);
      const publisher = await connect();
      for (const topic of [...other, ...matching]) {
        await publisher.publish(`${root}/${topic}`, topic, { retain: true });
      }
      await publisher.publish(`end/${root}`, 'end');
      expect(await subscriber.messages(matching.length + 1)).toEqual([...matching, 'end']);
      const late = await connect();
      await late.subscribe(`${root}/${filter}`);
      const retained = await late.messages(matching.length);
      expect(retained.toSorted()).toEqual(matching.toSorted());
    },
  );

  it('at the start match no topic that begins with $, live or retained [MQTT-4.7.2-1]', async () => {
    const name = unique('secret');
    const publisher = await connect();
    await publisher.publish(`$${name}/x`, 'retained', { retain: true });
    const subscriber = await connect();
    await subscriber.subscribe(['+/x', `+/${name}`, '#']);
    await publisher.publish(`$${name}/x`, 'live');
    await publisher.publish(`end/${name}`, 'end');
    const payloads: string[] = [];
    do payloads.push(...(await subscriber.messages(1)));
    while (payloads.at(-1) !== 'end');
    expect(payloads).not.toContain('live');
    expect(payloads).not.toContain('retained');
    const named = await connect();
    await named.subscribe(`$${name}/+`);
    expect(await named.messages(1)).toEqual(['retained']);
  });
});

describe('UNSUBSCRIBE', () => {
  it('without a filter ends the connection [MQTT-3.10.3-2]', async () => {
    await expectClosedBy(frame(0xa2, twoBytes(1)));
    await expectClosedBy(frame(0xa2));
  });

  it('whose filters do not fill it ends the connection [MQTT-3.10.3-1]', async () => {
    await expectClosedBy(frame(0xa2, twoBytes(1), 'a', [0]));
    await expectClosedBy(frame(0xa2, twoBytes(1), [0, 9, 0x61]));
    await expectClosedBy(frame(0xa2, twoBytes(1), lengthPrefixed('a'), [0, 1]));
  });

  it('ends the subscription whose filter is the same, character by character [MQTT-3.10.4-1] [MQTT-3.10.4-2]', async () => {
    const root = unique('same');
    const client = await connect();
    await client.subscribe([`${root}/+`, `${root}/a`, `end/${root}`]);
    await client.unsubscribe(`${root}/A`, `${root}/#`, root, `${root}/a/`);
    await client.publish(`${root}/b`, 'still');
    expect(await client.messages(1)).toEqual(['still']);
    await client.unsubscribe(`${root}/+`);
    await client.publish(`${root}/b`, 'no longer');
    await client.publish(`${root}/a`, 'by its other filter');
    await client.unsubscribe(`${root}/a`);
    await client.publish(`${root}/a`, 'no longer');
    await client.publish(`end/${root}`, 'end');
    expect(await client.messages(2)).toEqual(['by its other filter', 'end']);
  });

  it('lets a message that was sent before come to its end [MQTT-3.10.4-3]', async () => {
    const topic = unique('under-way');
    const clientId = unique('client');
    const client = await Probe.connect(target.url, { clientId, clean: false });
    await client.subscribe(topic);
    await client.publish(topic, 'under way');
    const { messageId } = await client.message();
    await client.unsubscribe(topic);
    client.drop();
    const again = await Probe.connect(target.url, { clientId, clean: false });
    expect(await again.message()).toMatchObject({ payload: 'under way', messageId, dup: true });
    again.acknowledge(messageId);
    await again.ping();
  });

  it('is answered with UNSUBACK although there is no such subscription [MQTT-3.10.4-5]', async () => {
    const client = await connect();
    await client.unsubscribe(unique('never'));
  });

  it('of several filters is answered once, and ends each of them [MQTT-3.10.4-6]', async () => {
    const root = unique('several');
    const client = await connect();
    await client.subscribe([`${root}/a`, `${root}/b`, `${root}/c`, `end/${root}`]);
    await client.unsubscribe(`${root}/a`, `${root}/never`, `${root}/b`);
    for (const name of ['a', 'b', 'c']) await client.publish(`${root}/${name}`, name);
    await client.publish(`end/${root}`, 'end');
    expect(await client.messages(2)).toEqual(['c', 'end']);
    expect(client.raw.received.some(({ cmd }) => cmd === 'unsuback')).toBe(false);
  });
});

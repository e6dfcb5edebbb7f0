import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { closeProbes, Probe, unique } from '../support/probe.ts';
import { startTarget, type Target } from '../support/target.ts';
import {
  connectFrame,
  fixedHeader,
  frame,
  lengthPrefixed,
  publishFrame,
  twoBytes,
} from '../support/wire.ts';

let target: Target;
beforeAll(async () => {
  target = await startTarget();
});
afterEach(closeProbes);
afterAll(() => target.stop());

/** Bytes that end the connection when an admitted client sends them. */
async function expectClosedBy(...bytes: Uint8Array[]): Promise<void> {
  const client = await Probe.connect(target.url);
  client.sendBytes(...bytes);
  await client.closed();
}

/** Overlong slash, surrogate, cut off, byte that never occurs. */
const ILL_FORMED = {
  overlong: [0xc0, 0xaf],
  surrogate: [0xed, 0xa0, 0x80],
  'cut off': [0x61, 0xe2, 0x82],
  'not a code': [0xff, 0x61],
  'beyond U+10FFFF': [0xf4, 0x90, 0x80, 0x80],
};

describe('UTF-8 strings', () => {
  it.each(Object.entries(ILL_FORMED))(
    'that are ill-formed end the connection, in topic names and filters: %s [MQTT-1.5.3-1] [MQTT-3.3.2-1] [MQTT-3.8.3-1] [MQTT-3.10.3-1]',
    async (_, bytes) => {
      const text = Uint8Array.from(bytes);
      await expectClosedBy(publishFrame(0, text, null));
      await expectClosedBy(publishFrame(2, text, 1));
      await expectClosedBy(publishFrame(4, text, 1));
      await expectClosedBy(frame(0x82, twoBytes(1), lengthPrefixed(text), [0]));
      await expectClosedBy(frame(0xa2, twoBytes(1), lengthPrefixed(text)));
    },
  );

  it('that are ill-formed end the connection in CONNECT: client id, will topic, user name [MQTT-3.1.3-4] [MQTT-3.1.3-10] [MQTT-3.1.3-11]', async () => {
    for (const bytes of Object.values(ILL_FORMED)) {
      const text = lengthPrefixed(Uint8Array.from(bytes));
      for (const connect of [
        connectFrame({ payload: [text] }),
        connectFrame({ flags: 0x06, payload: ['id', text, 'will'] }),
        connectFrame({ flags: 0x82, payload: ['id', text] }),
      ]) {
        const client = await Probe.open(target.url);
        client.sendBytes(connect);
        await client.closed();
        expect(client.raw.received).toEqual([]);
      }
    }
  });

  it('with U+0000 end the connection [MQTT-1.5.3-2] [MQTT-4.7.3-2]', async () => {
    await expectClosedBy(publishFrame(0, 'a\0b', null));
    await expectClosedBy(publishFrame(2, '\0', 1));
    await expectClosedBy(frame(0x82, twoBytes(1), 'a/\0', [0]));
    await expectClosedBy(frame(0xa2, twoBytes(1), '\0'));
    for (const payload of [['i\0d'], ['id', 'a\0', 'will'], ['id', 'us\0er']]) {
      const client = await Probe.open(target.url);
      const flags = [0x02, 0x06, 0x82][[1, 3, 2].indexOf(payload.length)];
      client.sendBytes(connectFrame({ flags: flags ?? 0x02, payload }));
      await client.closed();
    }
  });

  it('keep U+FEFF, which is part of the name and not stripped [MQTT-1.5.3-3]', async () => {
    const topic = unique('bom');
    const subscriber = await Probe.connect(target.url);
    await subscriber.subscribe([`\uFEFF${topic}`, `${topic}/end`]);
    const publisher = await Probe.connect(target.url);
    await publisher.publish(topic, 'without');
    await publisher.publish(`\uFEFF${topic}`, 'with');
    await publisher.publish(`${topic}/end`, 'end');
    expect(await subscriber.message()).toMatchObject({ topic: `\uFEFF${topic}`, payload: 'with' });
    expect(await subscriber.message()).toMatchObject({ payload: 'end' });
  });

  it('of more than 64 000 bytes are topic names like any other [MQTT-4.7.3-3]', async () => {
    const topic = `${unique('long')}/${'é'.repeat(30_000)}`.padEnd(35_000, 'x');
    const subscriber = await Probe.connect(target.url);
    expect(await subscriber.subscribe(`${topic.split('/')[0]}/#`)).toEqual([1]);
    const publisher = await Probe.connect(target.url);
    const bytes = Buffer.byteLength(topic);
    expect(bytes).toBeGreaterThan(64_000);
    expect(bytes).toBeLessThan(65_535);
    await publisher.publish(topic, '');
    expect((await subscriber.message()).topic).toBe(topic);
  });
});

describe('fixed header', () => {
  it('with other flags than the standard lays down ends the connection [MQTT-2.2.2-1] [MQTT-2.2.2-2]', async () => {
    for (const flags of [1, 2, 4, 8, 15]) {
      const client = await Probe.open(target.url);
      const valid = connectFrame({ payload: ['id'] });
      client.sendBytes(Buffer.from([0x10 | flags]), valid.subarray(1));
      await client.closed();
      expect(client.raw.received).toEqual([]);
      await expectClosedBy(frame(0x40 | flags, twoBytes(1)));
      await expectClosedBy(frame(0x50 | flags, twoBytes(1)));
      await expectClosedBy(frame(0x70 | flags, twoBytes(1)));
      await expectClosedBy(frame(0xc0 | flags));
    }
  });

  it('of PUBREL with other flags than 0010 ends the connection [MQTT-3.6.1-1]', async () => {
    for (const flags of [0, 1, 3, 6, 10]) await expectClosedBy(frame(0x60 | flags, twoBytes(1)));
  });

  it('of SUBSCRIBE with other flags than 0010 ends the connection [MQTT-3.8.1-1]', async () => {
    for (const flags of [0, 1, 3, 6, 10]) {
      await expectClosedBy(frame(0x80 | flags, twoBytes(1), 'a', [0]));
    }
  });

  it('of UNSUBSCRIBE with other flags than 0010 ends the connection [MQTT-3.10.1-1]', async () => {
    for (const flags of [0, 1, 3, 6, 10]) {
      await expectClosedBy(frame(0xa0 | flags, twoBytes(1), 'a'));
    }
  });

  it('of DISCONNECT with reserved bits ends the connection and counts as no farewell [MQTT-3.14.1-1]', async () => {
    const topic = unique('gone');
    const subscriber = await Probe.connect(target.url);
    await subscriber.subscribe(topic);
    const will = { topic, payload: Buffer.from('will'), qos: 0 as const, retain: false };
    const client = await Probe.connect(target.url, { will });
    client.sendBytes(Buffer.from([0xe1, 0]));
    await client.closed();
    expect((await subscriber.message()).payload).toBe('will');
  });

  it('of a kind that only a server sends, or that does not exist, ends the connection [MQTT-4.8.0-1]', async () => {
    await expectClosedBy(Buffer.from([0x20, 2, 0, 0]));
    await expectClosedBy(Buffer.from([0x90, 3, 0, 1, 0]));
    await expectClosedBy(Buffer.from([0xb0, 2, 0, 1]));
    await expectClosedBy(Buffer.from([0xd0, 0]));
    await expectClosedBy(Buffer.from([0x00, 0]));
    await expectClosedBy(Buffer.from([0xf0, 0]));
  });

  it('with a remaining length of five bytes ends the connection [MQTT-4.8.0-1]', async () => {
    await expectClosedBy(Buffer.from([0x30, 0x80, 0x80, 0x80, 0x80, 0x01]));
    await expectClosedBy(Buffer.from([0x30, 0xff, 0xff, 0xff, 0xff]));
  });

  it('with a remaining length that does not fit its packet ends the connection [MQTT-4.8.0-1]', async () => {
    await expectClosedBy(frame(0x40, [0]));
    await expectClosedBy(frame(0x40, [0, 1, 0]));
    await expectClosedBy(frame(0x62, [0, 1, 0]));
    await expectClosedBy(frame(0x82, [0]));
    await expectClosedBy(frame(0xc0, [0]));
    await expectClosedBy(frame(0xe0, [0]));
    await expectClosedBy(frame(0x82, twoBytes(1), [0, 9, 0x61, 0]));
    await expectClosedBy(frame(0x32, [0, 1, 0x61]));
    await expectClosedBy(frame(0x30, [0, 9, 0x61]));
  });

  it('that is written with more bytes than it needs is read all the same', async () => {
    const client = await Probe.connect(target.url);
    client.sendBytes(Buffer.from([0xc0, 0x80, 0x00]));
    const outcome = await Promise.race([client.take('pingresp'), client.closed()]);
    // MQTT 3.1.1 does not say that the shortest form must be used; closing is as good.
    expect(outcome === undefined || outcome.cmd === 'pingresp').toBe(true);
  });
});

describe('packet identifier', () => {
  it('0 ends the connection [MQTT-2.3.1-1]', async () => {
    await expectClosedBy(frame(0x82, twoBytes(0), 'a', [0]));
    await expectClosedBy(frame(0xa2, twoBytes(0), 'a'));
    await expectClosedBy(publishFrame(0x02, 'a', 0));
    await expectClosedBy(publishFrame(0x04, 'a', 0));
  });

  it('of what the broker sends is unused, and not 0 [MQTT-2.3.1-4] [MQTT-4.3.2-1]', async () => {
    const topic = unique('ids');
    const subscriber = await Probe.connect(target.url);
    await subscriber.subscribe(topic);
    const publisher = await Probe.connect(target.url);
    const ids = new Set<number>();
    for (let number = 0; number < 10; number += 1) {
      await publisher.publish(topic, String(number));
      const { messageId = 0, qos, dup } = await subscriber.message();
      expect({ qos, dup }).toEqual({ qos: 1, dup: false });
      ids.add(messageId);
    }
    expect(ids.size).toBe(10);
    expect(ids.has(0)).toBe(false);
  });

  it('is not in a PUBLISH at QoS 0 [MQTT-2.3.1-5] [MQTT-4.3.1-1]', async () => {
    const topic = unique('bare');
    const subscriber = await Probe.connect(target.url);
    await subscriber.subscribe(topic, 0);
    const bytes: Buffer[] = [];
    subscriber.raw.socket.on('data', (chunk: Buffer) => bytes.push(chunk));
    const publisher = await Probe.connect(target.url);
    await publisher.publish(topic, 'x');
    await subscriber.message();
    expect(Buffer.concat(bytes)).toEqual(publishFrame(0, topic, null, Buffer.from('x')));
  });

  it('of PUBACK, PUBREC and PUBCOMP is that of the PUBLISH [MQTT-2.3.1-6]', async () => {
    const client = await Probe.connect(target.url);
    const message = { cmd: 'publish', topic: 'a', payload: '', retain: false, dup: false } as const;
    for (const messageId of [1, 255, 256, 65_535]) {
      client.send({ ...message, qos: 1, messageId });
      expect((await client.take('puback')).messageId).toBe(messageId);
      client.send({ ...message, qos: 2, messageId });
      expect((await client.take('pubrec')).messageId).toBe(messageId);
      client.send({ cmd: 'pubrel', messageId });
      expect((await client.take('pubcomp')).messageId).toBe(messageId);
    }
  });

  it('of SUBACK and UNSUBACK is that of the request [MQTT-2.3.1-7] [MQTT-3.8.4-2] [MQTT-3.10.4-4]', async () => {
    const client = await Probe.connect(target.url);
    for (const messageId of [1, 255, 256, 65_535]) {
      client.send({ cmd: 'subscribe', messageId, subscriptions: [{ topic: 'a', qos: 0 }] });
      expect((await client.take('suback')).messageId).toBe(messageId);
      client.send({ cmd: 'unsubscribe', messageId, unsubscriptions: ['a'] });
      expect((await client.take('unsuback')).messageId).toBe(messageId);
    }
  });
});

describe('topic names and filters', () => {
  it('with wildcards are no topic names [MQTT-3.3.2-2] [MQTT-4.7.1-1]', async () => {
    for (const topic of ['a/+', '#', 'a/#', 'a+', '+', 'a#b']) {
      await expectClosedBy(publishFrame(0, topic, null));
      await expectClosedBy(publishFrame(2, topic, 1));
      await expectClosedBy(publishFrame(4, topic, 1));
    }
  });

  it('with # not as the whole last level are no filters [MQTT-4.7.1-2]', async () => {
    for (const filter of ['a/#/b', 'a#', '#/a', '##', 'a/b#', '#a']) {
      await expectClosedBy(frame(0x82, twoBytes(1), filter, [0]));
      await expectClosedBy(frame(0xa2, twoBytes(1), filter));
    }
  });

  it('with + not as a whole level are no filters [MQTT-4.7.1-3]', async () => {
    for (const filter of ['a+', '+a', 'a/+b', 'a/b+/c', '++']) {
      await expectClosedBy(frame(0x82, twoBytes(1), filter, [0]));
      await expectClosedBy(frame(0xa2, twoBytes(1), filter));
    }
  });

  it('have at least one character [MQTT-4.7.3-1]', async () => {
    await expectClosedBy(publishFrame(0, '', null));
    await expectClosedBy(publishFrame(2, '', 1));
    await expectClosedBy(frame(0x82, twoBytes(1), '', [0]));
    await expectClosedBy(frame(0xa2, twoBytes(1), ''));
  });

  it('of a claimed size that does not come are waited for, and nothing is made of them', async () => {
    const client = await Probe.connect(target.url);
    client.sendBytes(fixedHeader(0x30, 1000), Buffer.from([0, 200]));
    const other = await Probe.connect(target.url);
    await other.ping();
    expect(client.raw.isClosed()).toBe(false);
  });
});

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeProbes, Probe, unique } from '../support/probe.ts';
import { startTarget, type Target, type TargetOptions } from '../support/target.ts';
import {
  connectFrame,
  fixedHeader,
  frame,
  lengthPrefixed,
  publishFrame,
  twoBytes,
} from '../support/wire.ts';

/**
 * What docs/adr/0004-aedes-behind-one-wrapper.md says of Aedes as it comes, row by row, as seen by remote
 * clients. Here every test passes; `npm run test:stock-aedes` runs them against stock Aedes and compares
 * the failures with test/support/stock-aedes-expected.ts.
 */
let target: Target;
beforeEach(async () => {
  target = await startTarget();
});
afterEach(async () => {
  closeProbes();
  await target.stop();
});

/** For rows that need other settings than the usual ones. */
async function restart(settings: NonNullable<TargetOptions['settings']>): Promise<void> {
  await target.stop();
  target = await startTarget({ settings });
}

async function subscriberOf(filter: string | string[], qos: 0 | 1 = 1): Promise<Probe> {
  const subscriber = await Probe.connect(target.url);
  await subscriber.subscribe(filter, qos);
  return subscriber;
}

/**
 * A subscriber that reads nothing more, with some forty thousand messages behind more than the sockets
 * between it and the broker hold.
 */
async function freeze(): Promise<Probe> {
  const topic = unique('frozen');
  const frozen = await subscriberOf(topic, 0);
  frozen.raw.socket.pause();
  const publisher = await Probe.connect(target.url);
  const large = publishFrame(0, topic, null, Buffer.alloc(60_000));
  for (let number = 0; number < 350; number += 1) publisher.sendBytes(large);
  await new Promise((resolve) => setTimeout(resolve, 500));
  const small = publishFrame(0, topic, null, Buffer.from('x'));
  const flood = Buffer.concat(Array.from({ length: 4000 }, () => small));
  for (let number = 0; number < 10; number += 1) {
    (await Probe.connect(target.url)).sendBytes(flood);
  }
  await new Promise((resolve) => setTimeout(resolve, 500));
  return frozen;
}

/** Whether the broker lets a client in and hands it its own message, within ten seconds. */
async function expectServed(): Promise<void> {
  const topic = unique('served');
  const client = await subscriberOf(topic);
  client.send({
    cmd: 'publish',
    topic,
    payload: 'x',
    qos: 1,
    dup: false,
    retain: false,
    messageId: 9,
  });
  expect((await client.message(10_000)).payload).toBe('x');
}

describe('stock Aedes, row by row', () => {
  it('row 1: a retained and a plain message that follow each other both arrive', async () => {
    const root = unique('overtaken');
    const subscriber = await subscriberOf(`${root}/#`);
    const publisher = await Probe.connect(target.url);
    const rounds = 200;
    for (let round = 1; round <= rounds; round += 1) {
      publisher.sendBytes(
        publishFrame(0x01, `${root}/kept`, null, Buffer.from(`kept ${round}`)),
        publishFrame(0x00, `${root}/plain`, null, Buffer.from(`plain ${round}`)),
      );
    }
    const payloads = new Set<string>();
    while (payloads.size < 2 * rounds) {
      const { payload, qos, messageId } = await subscriber
        .message(10_000)
        .catch((error: unknown) => {
          throw new Error(`${payloads.size} of ${2 * rounds} arrived`, { cause: error });
        });
      if (qos === 1) subscriber.acknowledge(messageId);
      payloads.add(payload);
    }
  });

  it('row 2: a frozen subscriber with thousands of messages queued leaves, and nothing else happens (N-04)', async () => {
    const frozen = await freeze();
    frozen.drop();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    expect(target.isAlive()).toBe(true);
    await expectServed();
  });

  it('row 3: a frozen subscriber does not hold up healthy ones (N-03)', async () => {
    const topic = unique('healthy');
    const healthy = await subscriberOf(topic);
    const publisher = await Probe.connect(target.url);
    await freeze();
    publisher.sendBytes(publishFrame(0, topic, null, Buffer.from('marker')));
    expect((await healthy.message(10_000)).payload).toBe('marker');
  });

  it('row 4: a CONNECT that claims 200 MB is refused by its header (N-10)', async () => {
    const client = await Probe.open(target.url);
    client.sendBytes(fixedHeader(0x10, 200_000_000), Buffer.alloc(8_000_000));
    await client.closed(10_000);
  });

  it('row 5: half a CONNECT is cut off at a deadline, and there is a bound on connections (N-09)', async () => {
    await restart({ CONNECT_DEADLINE_S: '1' });
    const half = await Probe.open(target.url);
    half.sendBytes(Buffer.from([0x10, 60, 0, 4]));
    await half.closed(10_000);
    await restart({ CONNECT_DEADLINE_S: '60', CONNECTIONS_MAX: '20' });
    const probes = await Promise.all(Array.from({ length: 30 }, () => Probe.open(target.url)));
    await Promise.race(probes.map((probe) => probe.closed(10_000)));
  });

  it('row 6: what was refused in a SUBSCRIBE of a kept session is not queued for it', async () => {
    const [clientId, own] = [unique('kept'), unique('own')];
    const first = await Probe.connect(target.url, { clientId, clean: false });
    expect(await first.subscribe([own, 'test/nosubscribe'])).toEqual([1, 128]);
    await first.disconnect();
    const publisher = await Probe.connect(target.url);
    for (const topic of ['test/nosubscribe', own]) await publisher.publish(topic, topic);
    const again = await Probe.connect(target.url, { clientId, clean: false });
    expect(await again.messages(1)).toEqual([own]);
  });

  it('row 7: a connection that dies in its handshake does not strike the live one off the list', async () => {
    const clientId = unique('slow');
    for (let round = 0; round < 20; round += 1) {
      const live = await Probe.connect(target.url, { clientId });
      const dying = await Probe.open(target.url);
      dying.sendBytes(connectFrame({ payload: [clientId] }));
      // Dies at once, or at some moment of its handshake.
      await new Promise((resolve) => setTimeout(resolve, round % 20));
      if (round % 2 === 0) dying.raw.socket.resetAndDestroy();
      else dying.drop();
      const next = await Probe.connect(target.url, { clientId });
      await live.closed(10_000);
      await next.ping();
      next.drop();
    }
  });

  it('row 8: a will to a topic with wildcards or NUL is never published', async () => {
    const root = unique('poisoned');
    const subscriber = await subscriberOf(`${root}/#`);
    for (const topic of [`${root}/#`, `${root}/+/x`, `${root}/a\0b`]) {
      const client = await Probe.open(target.url);
      client.sendBytes(connectFrame({ flags: 0x06, payload: [unique('id'), topic, 'will'] }));
      await Promise.race([client.take('connack').catch(() => undefined), client.closed()]);
      client.drop();
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
    const publisher = await Probe.connect(target.url);
    await publisher.publish(`${root}/end`, 'end');
    expect(await subscriber.messages(1)).toEqual(['end']);
  });

  it('row 9: a message that a subscriber may not read takes no other with it', async () => {
    const [clientId, own] = [unique('kept'), unique('own')];
    const subscriber = await Probe.connect(target.url, { clientId, clean: false });
    await subscriber.subscribe([own, 'test/+']);
    const publisher = await Probe.connect(target.url);
    publisher.sendBytes(
      publishFrame(2, own, 1, Buffer.from('one')),
      publishFrame(2, 'test/withheld', 2, Buffer.from('withheld')),
      publishFrame(2, own, 3, Buffer.from('two')),
    );
    const payloads: string[] = [];
    do payloads.push(...(await subscriber.messages(1)));
    while (payloads.at(-1) !== 'two');
    expect(payloads).toContain('one');
    await subscriber.ping();
  });

  it('row 10: what waits for a client that is away is bounded', async () => {
    await restart({ SESSION_QUEUE_MESSAGES_MAX: '100' });
    const [clientId, topic] = [unique('away'), unique('topic')];
    const first = await Probe.connect(target.url, { clientId, clean: false });
    await first.subscribe([topic, `${topic}/end`]);
    await first.disconnect();
    const publisher = await Probe.connect(target.url);
    for (let number = 1; number <= 300; number += 1) await publisher.publish(topic, String(number));
    const again = await Probe.connect(target.url, { clientId, clean: false });
    const payloads: string[] = [];
    do payloads.push(...(await again.messages(1)));
    while (payloads.at(-1) !== '300');
    expect(payloads.length).toBeLessThanOrEqual(100);
  });

  it('row 11: nobody reads of others under $SYS', async () => {
    const name = unique('snooped');
    const snooper = await subscriberOf(['$SYS/#', '$SYS/+/new/+', name]);
    await (await Probe.connect(target.url, { clientId: 'somebody' })).disconnect();
    const publisher = await Probe.connect(target.url);
    await publisher.publish(name, 'end');
    expect((await snooper.message()).payload).toBe('end');
  });

  it('row 12: a topic with NUL, a control character or broken UTF-8 ends the connection (I-03)', async () => {
    const names = ['a\0b', 'a\u0001b', 'a\u007fb'].map((name) => Buffer.from(name));
    for (const name of [...names, Buffer.from([0x61, 0xc3, 0x28])]) {
      const client = await Probe.connect(target.url);
      client.sendBytes(publishFrame(2, name, 1));
      await client.closed(10_000);
    }
  });

  it('row 16: a QoS 2 message that is sent again is taken in once', async () => {
    const counter = await subscriberOf('test/count');
    const publisher = await Probe.connect(target.url);
    for (const flags of [0x04, 0x0c, 0x0c]) {
      publisher.sendBytes(publishFrame(flags, 'test/counted', 5, Buffer.from('once')));
      await publisher.take('pubrec');
    }
    publisher.send({ cmd: 'pubrel', messageId: 5 });
    await publisher.take('pubcomp');
    await publisher.publish('test/count', 'end');
    const payloads: string[] = [];
    do payloads.push(...(await counter.messages(1)));
    while (payloads.at(-1) !== 'end');
    expect(payloads.length).toBeLessThanOrEqual(2);
  });

  it('row 17: frames that break a rule end the connection', async () => {
    const breaches: [string, Buffer][] = [
      ['SUBSCRIBE with packet identifier 0', frame(0x82, twoBytes(0), 'a', [0])],
      ['UNSUBSCRIBE with packet identifier 0', frame(0xa2, twoBytes(0), 'a')],
      ['PUBLISH with packet identifier 0', publishFrame(2, 'a', 0)],
      ['DUP at QoS 0', publishFrame(8, 'a', null)],
      ['PUBACK of three bytes', frame(0x40, [0, 1, 0])],
      ['PUBREL of one byte', frame(0x62, [0])],
      ['UNSUBSCRIBE without a filter', frame(0xa2, twoBytes(1))],
      ['surrogate in a topic', publishFrame(2, Buffer.from([0xed, 0xa0, 0x80]), 1)],
      ['NUL in a filter', frame(0x82, twoBytes(1), 'a\0', [0])],
      ['PINGREQ with content', frame(0xc0, [0])],
      ['CONNACK from a client', frame(0x20, [0, 0])],
    ];
    const survived: string[] = [];
    for (const [name, bytes] of breaches) {
      const client = await Probe.connect(target.url);
      client.sendBytes(bytes);
      await client.closed(5000).catch(() => survived.push(name));
    }
    const text = lengthPrefixed(Buffer.from([0xff]));
    for (const [name, bytes] of [
      ['will QoS 3', connectFrame({ flags: 0x1e, payload: ['id', 'topic', 'will'] })],
      ['reserved connect flag', connectFrame({ flags: 0x03, payload: ['id'] })],
      ['client id that is not UTF-8', connectFrame({ payload: [text] })],
    ] as const) {
      const client = await Probe.open(target.url);
      client.sendBytes(bytes);
      await client.closed(5000).catch(() => survived.push(name));
    }
    expect(survived).toEqual([]);
  });

  it('row 18: a kept session without subscriptions is present, and what is sent again has DUP', async () => {
    const [clientId, topic] = [unique('kept'), unique('topic')];
    await (await Probe.connect(target.url, { clientId, clean: false })).disconnect();
    const client = await Probe.open(target.url);
    const { sessionPresent } = await client.login({ clientId, clean: false });
    await client.subscribe(topic);
    await client.publish(topic, 'x');
    await client.message();
    client.drop();
    const again = await Probe.connect(target.url, { clientId, clean: false });
    const { dup } = await again.message();
    expect({ sessionPresent, dup }).toEqual({ sessionPresent: true, dup: true });
  });

  it('row 19: + matches empty levels of retained topics, and wildcards at the start no $ topics', async () => {
    const name = unique('level');
    const publisher = await Probe.connect(target.url);
    for (const topic of [`${name}//x`, `${name}/`, `$${name}/x`]) {
      await publisher.publish(topic, topic, { retain: true });
    }
    const seen: Record<string, string[]> = {};
    for (const filter of [`${name}/+/x`, `${name}/+`, '+/x', '#']) {
      const subscriber = await subscriberOf([filter, `end/${name}`]);
      await publisher.publish(`end/${name}`, 'end');
      const payloads: string[] = [];
      do payloads.push(...(await subscriber.messages(1)));
      while (payloads.at(-1) !== 'end');
      seen[filter] = payloads.slice(0, -1).toSorted();
      subscriber.drop();
    }
    expect(seen).toEqual({
      [`${name}/+/x`]: [`${name}//x`],
      [`${name}/+`]: [`${name}/`],
      '+/x': [],
      '#': [`${name}/`, `${name}//x`].toSorted(),
    });
  });

  it('row 20: a retained PUBLISH and a SUBSCRIBE in one write give one copy', async () => {
    const copies: number[] = [];
    for (let round = 0; round < 5; round += 1) {
      const [topic, end] = [unique('copy'), unique('end')];
      const client = await Probe.connect(target.url);
      client.sendBytes(
        publishFrame(0x03, topic, 1, Buffer.from('kept')),
        frame(0x82, twoBytes(2), topic, [1], end, [1]),
      );
      await client.take('suback');
      await client.publish(end, 'end');
      const payloads: string[] = [];
      do payloads.push(...(await client.messages(1)));
      while (payloads.at(-1) !== 'end');
      copies.push(payloads.length - 1);
    }
    expect(copies).toEqual([1, 1, 1, 1, 1]);
  });
});

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { closeProbes, Probe } from '../support/probe.ts';
import { startTarget, type Target } from '../support/target.ts';
import {
  connectFrame,
  fixedHeader,
  frame,
  lengthPrefixed,
  publishFrame,
  twoBytes,
} from '../support/wire.ts';

/** Packets that a client may send, each a valid one: what the malformed ones are made from. */
const VALID: Readonly<Record<string, Buffer>> = {
  'PUBLISH QoS 0': publishFrame(0, 'a', null),
  'PUBLISH QoS 1': publishFrame(2, 'a', 1),
  'PUBLISH QoS 2': publishFrame(4, 'a', 1),
  PUBACK: frame(0x40, twoBytes(1)),
  PUBREC: frame(0x50, twoBytes(1)),
  PUBREL: frame(0x62, twoBytes(1)),
  PUBCOMP: frame(0x70, twoBytes(1)),
  SUBSCRIBE: frame(0x82, twoBytes(1), 'a', [0]),
  UNSUBSCRIBE: frame(0xa2, twoBytes(1), 'a'),
  PINGREQ: frame(0xc0),
  DISCONNECT: frame(0xe0),
};
const CONNECT = connectFrame({ payload: ['id'] });
/** Packets whose flags are all reserved but for those of their first byte [MQTT-2.2.2-1]. */
const FLAGGED = Object.entries(VALID).filter(([name]) => !name.startsWith('PUBLISH'));
/** Overlong, surrogate, cut off, no code at all, U+0000. */
const BAD_TEXTS = [[0xc0, 0xaf], [0xed, 0xa0, 0x80], [0x61, 0xe2, 0x82], [0xff], [0x61, 0]];

type Case = readonly [kind: string, bytes: Buffer];

function withFlags(packet: Buffer, flags: number): Buffer {
  const changed = Buffer.from(packet);
  changed[0] = ((packet[0] ?? 0) & 0xf0) | flags;
  return changed;
}

/** The packet with another end than its kind has, and a length that fits it. */
function withBody(packet: Buffer, body: Buffer): Buffer {
  return Buffer.concat([fixedHeader(packet[0] ?? 0, body.length), body]);
}

/** Every malformed packet that an admitted client could send. */
function* malformed(): Generator<Case> {
  for (const [name, packet] of FLAGGED) {
    for (let flags = 0; flags < 16; flags += 1) {
      if (flags === ((packet[0] ?? 0) & 0x0f)) continue;
      yield [`${name} with flags ${flags} (2.2.2-2)`, withFlags(packet, flags)];
    }
  }
  for (const flags of [6, 7, 14, 15]) {
    yield [`PUBLISH at QoS 3, flags ${flags} (3.3.1-4)`, publishFrame(flags, 'a', 1)];
  }
  for (const type of [0, 2, 9, 11, 13, 15]) {
    yield [`packet type ${type}, not of a client`, frame(type << 4, twoBytes(1))];
    yield [`packet type ${type}, empty`, frame(type << 4)];
  }
  yield ['a second CONNECT (3.1.0-2)', CONNECT];
  yield* ofLengths();
  yield* ofIdentifiers();
  yield* ofTexts();
  for (const qos of [3, 4, 0x40, 0x80, 0xff]) {
    yield [`SUBSCRIBE with QoS byte ${qos} (3-8.3-4)`, frame(0x82, twoBytes(1), 'a', [qos])];
  }
  yield ['SUBSCRIBE without a filter (3.8.3-3)', frame(0x82, twoBytes(1))];
  yield ['UNSUBSCRIBE without a filter (3.10.3-2)', frame(0xa2, twoBytes(1))];
  yield ['SUBSCRIBE whose last filter has no QoS', frame(0x82, twoBytes(1), 'a', [0], 'b')];
}

function* ofLengths(): Generator<Case> {
  for (const [name, packet] of Object.entries(VALID)) {
    const first = Buffer.from([packet[0] ?? 0]);
    const five = Buffer.from([0x80, 0x80, 0x80, 0x80, 0x01]);
    yield [`${name} with a length of five bytes (2.2.3)`, Buffer.concat([first, five])];
    const body = packet.subarray(2);
    for (let cut = 0; cut < body.length; cut += 1) {
      // A PUBLISH may end after its head: its payload is what is left.
      yield [`${name} cut to ${cut} bytes`, withBody(packet, body.subarray(0, cut))];
    }
    if (name.startsWith('PUBLISH')) continue;
    yield [`${name} with a byte too many`, withBody(packet, Buffer.concat([body, Buffer.of(0)]))];
  }
}

function* ofIdentifiers(): Generator<Case> {
  yield ['PUBLISH at QoS 1 with identifier 0 (2.3.1-1)', publishFrame(2, 'a', 0)];
  yield ['PUBLISH at QoS 2 with identifier 0 (2.3.1-1)', publishFrame(4, 'a', 0)];
  yield ['SUBSCRIBE with identifier 0 (2.3.1-1)', frame(0x82, twoBytes(0), 'a', [0])];
  yield ['UNSUBSCRIBE with identifier 0 (2.3.1-1)', frame(0xa2, twoBytes(0), 'a')];
}

function* ofTexts(): Generator<Case> {
  for (const bytes of BAD_TEXTS) {
    const text = Uint8Array.from(bytes);
    const shown = bytes.join();
    yield [`PUBLISH to ${shown} (1.5.3-1)`, publishFrame(0, text, null)];
    const prefixed = lengthPrefixed(text);
    yield [`SUBSCRIBE to ${shown} (1.5.3-1)`, frame(0x82, twoBytes(1), prefixed, [0])];
    yield [`UNSUBSCRIBE of ${shown} (1.5.3-1)`, frame(0xa2, twoBytes(1), prefixed)];
  }
  for (const topic of ['', '#', '+', 'a/#', 'a/+/b', 'a#']) {
    yield [`PUBLISH to "${topic}" (3.3.2-2)`, publishFrame(2, topic, 1)];
  }
  for (const filter of ['', 'a#', 'a/#/b', 'a+', '+a/b', '##']) {
    yield [`SUBSCRIBE to "${filter}" (4.7.1-2)`, frame(0x82, twoBytes(1), filter, [0])];
    yield [`UNSUBSCRIBE of "${filter}" (4.7.1-2)`, frame(0xa2, twoBytes(1), filter)];
  }
}

/** Every first packet that is no CONNECT to be answered with anything. */
function* malformedFirst(): Generator<Case> {
  for (const [name, packet] of Object.entries(VALID)) yield [`${name} first`, packet];
  for (let flags = 1; flags < 16; flags += 1) {
    yield [`CONNECT with flags ${flags} (2.2.2-2)`, withFlags(CONNECT, flags)];
  }
  const body = CONNECT.subarray(2);
  for (let cut = 0; cut < body.length; cut += 1) {
    yield [`CONNECT cut to ${cut} bytes`, withBody(CONNECT, body.subarray(0, cut))];
  }
  yield ['CONNECT with a byte too many', withBody(CONNECT, Buffer.concat([body, Buffer.of(0)]))];
  yield ['the reserved connect flag', connectFrame({ flags: 0x03, payload: ['id'] })];
  yield ['a will that is not announced', connectFrame({ payload: ['id', 'topic', 'will'] })];
  yield ['a will that is missing', connectFrame({ flags: 0x06, payload: ['id'] })];
  yield ['a will at QoS 3', connectFrame({ flags: 0x1e, payload: ['id', 'topic', 'will'] })];
  yield ['a will QoS without a will', connectFrame({ flags: 0x0a, payload: ['id'] })];
  yield ['will retain without a will', connectFrame({ flags: 0x22, payload: ['id'] })];
  yield ['a password without a user name', connectFrame({ flags: 0x42, payload: ['id', 'key'] })];
  yield ['a user name that is missing', connectFrame({ flags: 0x82, payload: ['id'] })];
  yield ['another protocol', connectFrame({ name: 'HTTP', payload: ['id'] })];
  for (const bytes of BAD_TEXTS) {
    const shown = bytes.join();
    const text = lengthPrefixed(Uint8Array.from(bytes));
    yield [`a client identifier of ${shown}`, connectFrame({ payload: [text] })];
    yield [`a user name of ${shown}`, connectFrame({ flags: 0x82, payload: ['id', text] })];
    yield [`a will topic of ${shown}`, connectFrame({ flags: 0x06, payload: ['id', text, 'w'] })];
  }
}

let target: Target;
beforeAll(async () => {
  target = await startTarget();
});
afterEach(closeProbes);
afterAll(() => target.stop());

/** @returns those of the cases that did not end their connection, or were answered. */
async function survivors(cases: Iterable<Case>, isAdmitted: boolean): Promise<string[]> {
  const wrong: string[] = [];
  for (const [kind, bytes] of cases) {
    const client = isAdmitted ? await Probe.connect(target.url) : await Probe.open(target.url);
    client.sendBytes(bytes);
    const isClosed = await Promise.race([
      client.raw.closed.then(() => true),
      new Promise<false>((resolve) => setTimeout(() => resolve(false), 10_000)),
    ]);
    const answers = client.raw.received.map(({ cmd }) => cmd);
    if (!isClosed || answers.length > 0) wrong.push(`${kind}: ${answers.join() || 'open'}`);
    client.drop();
  }
  return wrong;
}

describe('a malformed frame of every kind', () => {
  it('ends the connection of an admitted client, and is not answered (I-01)', async () => {
    const cases = [...malformed()];
    expect(cases.length).toBeGreaterThan(200);
    // DISCONNECT with other bytes ends the connection as any does; that it is no farewell is proved elsewhere.
    expect(await survivors(cases, true)).toEqual([]);
    const other = await Probe.connect(target.url);
    await other.ping();
  });

  it('ends a connection that has not been admitted, and is not answered (I-01)', async () => {
    const cases = [...malformedFirst()];
    expect(cases.length).toBeGreaterThan(50);
    expect(await survivors(cases, false)).toEqual([]);
    const other = await Probe.connect(target.url);
    await other.ping();
  });
});

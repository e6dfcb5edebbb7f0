import { once } from 'node:events';
import { Duplex, PassThrough } from 'node:stream';
import fc from 'fast-check';
import mqttPacket, { type Packet } from 'mqtt-packet';
import { describe, expect, it } from 'vitest';
import type { Intake } from '../../broker/access.ts';
import { Framer, type DirectPublication, type PacketSink } from '../../broker/framer.ts';

const CONNECT: Packet = {
  cmd: 'connect',
  protocolId: 'MQTT',
  protocolVersion: 4,
  clientId: 'device',
  clean: true,
  keepalive: 60,
};
const DATA: Intake = { channel: 'data', name: null, refusal: null, word: 'data' };

/** A sink that takes everything; `parts` win. */
function sinkWith(parts: Partial<PacketSink>): PacketSink {
  return {
    authorize: () => DATA,
    take: () => true,
    subscribe: () => Promise.resolve(),
    unsubscribe: () => Promise.resolve(),
    acknowledged: () => undefined,
    drained: () => undefined,
    ...parts,
  };
}

/** A framer with both of its ends in the hands of the test. */
function createFramer(packetBytesMax = 65_536) {
  const fromClient = new PassThrough();
  const toClient = new PassThrough();
  const socket = Duplex.from({ readable: fromClient, writable: toClient });
  const violations: string[] = [];
  const framer = new Framer(socket, packetBytesMax, {
    onViolation: (reason) => violations.push(reason),
  });
  framer.on('error', () => undefined);
  socket.on('error', () => undefined);
  const engineGot: Buffer[] = [];
  framer.on('data', (bytes: Buffer) => engineGot.push(bytes));
  return { framer, fromClient, toClient, violations, engineGot };
}

/** Two turns of the event loop: bytes pass through two streams on their way. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 6; turn += 1) await new Promise(setImmediate);
}

function parseAll(bytes: Buffer): unknown[] {
  const parser = mqttPacket.parser({ protocolVersion: 4 });
  const packets: unknown[] = [];
  parser.on('packet', (packet) => packets.push(JSON.parse(JSON.stringify(packet))));
  parser.on('error', (error) => packets.push(String(error)));
  parser.parse(bytes);
  return packets;
}

const packetId = fc.integer({ min: 1, max: 65_535 });
const topicName = fc.stringMatching(/^[a-zA-Z0-9/_é]{1,40}$/);
const anyPacket: fc.Arbitrary<Packet> = fc.oneof(
  fc.record({
    cmd: fc.constant('publish' as const),
    topic: topicName,
    payload: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    qos: fc.constantFrom(0 as const, 1 as const, 2 as const),
    messageId: packetId,
    dup: fc.constant(false),
    retain: fc.boolean(),
  }),
  fc.record({
    cmd: fc.constant('subscribe' as const),
    messageId: packetId,
    subscriptions: fc.array(
      fc.record({ topic: topicName, qos: fc.constantFrom(0 as const, 1 as const, 2 as const) }),
      { minLength: 1, maxLength: 5 },
    ),
  }),
  fc.record({
    cmd: fc.constant('unsubscribe' as const),
    messageId: packetId,
    unsubscriptions: fc.array(topicName, { minLength: 1, maxLength: 5 }),
  }),
  fc.record({
    cmd: fc.constantFrom(
      'puback' as const,
      'pubrec' as const,
      'pubrel' as const,
      'pubcomp' as const,
    ),
    messageId: packetId,
  }),
  fc.constant({ cmd: 'disconnect' } as Packet),
);

describe('Framer', () => {
  it('hands on the packets that mqtt-packet sees, however the stream is cut (N-13)', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(anyPacket, { maxLength: 12 }),
        fc.array(fc.nat(), { maxLength: 40 }),
        async (packets, cuts) => {
          const { framer, fromClient, engineGot, violations } = createFramer();
          fromClient.write(mqttPacket.generate(CONNECT));
          await settle();
          framer.admit(null);
          const bytes = Buffer.concat(packets.map((packet) => mqttPacket.generate(packet)));
          const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort(
            (a, b) => a - b,
          );
          for (const [index, place] of [...places, bytes.length].entries()) {
            fromClient.write(bytes.subarray(places[index - 1] ?? 0, place));
            if (index % 5 === 0) await settle();
          }
          await settle();
          const connect = mqttPacket.generate(CONNECT);
          expect(violations).toEqual([]);
          const all = parseAll(Buffer.concat([connect, bytes]));
          // [MQTT-3.14.4-2] Nothing behind DISCONNECT is read.
          const last = all.findIndex((packet) => (packet as Packet).cmd === 'disconnect');
          expect(parseAll(Buffer.concat(engineGot))).toEqual(
            last < 0 ? all : all.slice(0, last + 1),
          );
          framer.destroy();
        },
      ),
      { numRuns: 150 },
    );
  });

  it('never throws and keeps little, whatever bytes come', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 400 }),
        fc.boolean(),
        async (bytes, isAdmitted) => {
          const { framer, fromClient, violations } = createFramer();
          if (isAdmitted) {
            fromClient.write(mqttPacket.generate(CONNECT));
            await settle();
            framer.admit(sinkWith({}));
          }
          fromClient.write(bytes);
          await settle();
          expect(violations.length).toBeLessThanOrEqual(1);
          expect(framer.destroyed).toBe(violations.length === 1);
          framer.destroy();
        },
      ),
      { numRuns: 300 },
    );
  });

  it('answers PINGREQ while acknowledgements are held, and sends PUBACKs in one write', async () => {
    const { framer, fromClient, toClient } = createFramer();
    const taken: DirectPublication[] = [];
    const sink = sinkWith({ take: (_intake, publication) => taken.push(publication) > 0 });
    fromClient.write(mqttPacket.generate(CONNECT));
    await settle();
    framer.admit(sink);
    const publish = (messageId: number) =>
      mqttPacket.generate({
        cmd: 'publish',
        topic: 'v1/me/data',
        payload: '{}',
        qos: 1,
        messageId,
        dup: false,
        retain: false,
      });
    const ping = mqttPacket.generate({ cmd: 'pingreq' });
    fromClient.write(Buffer.concat([publish(1), publish(258), ping]));
    await settle();
    expect(toClient.read()).toEqual(Buffer.from([0xd0, 0]));
    expect(taken.map(({ topic, payload }) => [topic, payload.toString()])).toEqual([
      ['v1/me/data', '{}'],
      ['v1/me/data', '{}'],
    ]);
    for (const { acknowledge } of taken) acknowledge();
    await settle();
    expect(toClient.read()).toEqual(Buffer.from([0x40, 2, 0, 1, 0x40, 2, 1, 2]));
    framer.destroy();
  });

  it('takes a message that is sent again before its PUBACK once, and acknowledges it once', async () => {
    const { framer, fromClient, toClient } = createFramer();
    const taken: DirectPublication[] = [];
    fromClient.write(mqttPacket.generate(CONNECT));
    await settle();
    framer.admit(sinkWith({ take: (_intake, publication) => taken.push(publication) > 0 }));
    const publish = (messageId: number, dup: boolean) =>
      mqttPacket.generate({
        cmd: 'publish',
        topic: 'v1/me/data',
        payload: '{}',
        qos: 1,
        messageId,
        dup,
        retain: false,
      });
    fromClient.write(Buffer.concat([publish(1, false), publish(1, true), publish(2, true)]));
    await settle();
    expect(taken).toHaveLength(2);
    taken[0]?.acknowledge();
    taken[1]?.acknowledge();
    await settle();
    expect(toClient.read()).toEqual(Buffer.from([0x40, 2, 0, 1, 0x40, 2, 0, 2]));
    fromClient.write(publish(1, true));
    await settle();
    expect(taken).toHaveLength(3);
    framer.destroy();
  });

  it('stops reading when a publication has to wait, and goes on when it has gone on', async () => {
    const { framer, fromClient } = createFramer();
    let taken = 0;
    fromClient.write(mqttPacket.generate(CONNECT));
    await settle();
    framer.admit(
      sinkWith({
        take: () => {
          taken += 1;
          return false;
        },
      }),
    );
    const publish = mqttPacket.generate({
      cmd: 'publish',
      topic: 'v1/me/data',
      payload: '{}',
      qos: 0,
      dup: false,
      retain: false,
    });
    fromClient.write(Buffer.concat([publish, publish, publish]));
    await settle();
    expect(taken).toBe(1);
    framer.goOn();
    expect(taken).toBe(2);
    framer.destroy();
  });

  it('stops reading at 512 unsettled publications', async () => {
    const { framer, fromClient } = createFramer();
    const taken: DirectPublication[] = [];
    fromClient.write(mqttPacket.generate(CONNECT));
    await settle();
    framer.admit(sinkWith({ take: (_intake, publication) => taken.push(publication) > 0 }));
    const publish = mqttPacket.generate({
      cmd: 'publish',
      topic: 't',
      payload: 'x',
      qos: 1,
      messageId: 1,
      dup: false,
      retain: false,
    });
    fromClient.write(Buffer.concat(Array.from({ length: 1000 }, () => publish)));
    await settle();
    expect(taken).toHaveLength(512);
    for (const { acknowledge } of taken.splice(0, 256)) acknowledge();
    await settle();
    expect(taken.length).toBe(512);
    framer.destroy();
  });

  it('gives SUBSCRIBE, UNSUBSCRIBE and PUBACK to the sink, and rests while one is under way', async () => {
    const { framer, fromClient, engineGot } = createFramer();
    const seen: unknown[] = [];
    const ends: (() => void)[] = [];
    fromClient.write(mqttPacket.generate(CONNECT));
    await settle();
    const wait = (packet: unknown) => {
      seen.push(packet);
      return new Promise<void>((resolve) => ends.push(resolve));
    };
    framer.admit(
      sinkWith({
        subscribe: wait,
        unsubscribe: wait,
        acknowledged: (packetId) => void seen.push(packetId),
      }),
    );
    const subscriptions = [
      { topic: 'a/+', qos: 1 as const },
      { topic: 'é', qos: 2 as const },
    ];
    fromClient.write(
      Buffer.concat([
        mqttPacket.generate({ cmd: 'subscribe', messageId: 258, subscriptions }),
        mqttPacket.generate({ cmd: 'unsubscribe', messageId: 3, unsubscriptions: ['a/+', 'é'] }),
        mqttPacket.generate({ cmd: 'puback', messageId: 515 }),
      ]),
    );
    await settle();
    expect(seen).toEqual([{ messageId: 258, subscriptions }]);
    ends.shift()?.();
    await settle();
    expect(seen.slice(1)).toEqual([{ messageId: 3, unsubscriptions: ['a/+', 'é'] }]);
    ends.shift()?.();
    await settle();
    expect(seen.slice(2)).toEqual([515]);
    expect(Buffer.concat(engineGot)).toEqual(mqttPacket.generate(CONNECT));
    framer.destroy();
  });

  it('reads nothing between CONNECT and its admission', async () => {
    const { framer, fromClient, engineGot } = createFramer();
    const later = mqttPacket.generate({ cmd: 'disconnect' });
    fromClient.write(Buffer.concat([mqttPacket.generate(CONNECT), later]));
    await settle();
    expect(Buffer.concat(engineGot)).toEqual(mqttPacket.generate(CONNECT));
    framer.admit(null);
    await settle();
    expect(Buffer.concat(engineGot).subarray(-2)).toEqual(later);
    framer.destroy();
  });

  it('closes its socket when the engine closes it', async () => {
    const { framer, fromClient } = createFramer();
    const closed = once(framer, 'close');
    framer.destroy();
    await closed;
    await settle();
    expect(fromClient.destroyed).toBe(true);
  });
});

/** Bytes that break one rule each, after CONNACK unless they are a CONNECT. */
const BREACHES: readonly [string, number[]][] = [
  ['a remaining length of five bytes [MQTT-2.2.3]', [0x30, 0x80, 0x80, 0x80, 0x80, 1]],
  ['packet type 0', [0x00, 0]],
  ['packet type 15', [0xf0, 0]],
  ['CONNACK from a client', [0x20, 2, 0, 0]],
  ['SUBACK from a client', [0x90, 3, 0, 1, 0]],
  ['PINGRESP from a client', [0xd0, 0]],
  ['SUBSCRIBE with flags 0 [MQTT-3.8.1-1]', [0x80, 6, 0, 1, 0, 1, 0x61, 0]],
  ['SUBSCRIBE without filters [MQTT-3.8.3-3]', [0x82, 2, 0, 1]],
  ['SUBSCRIBE with packet identifier 0 [MQTT-2.3.1-1]', [0x82, 6, 0, 0, 0, 1, 0x61, 0]],
  ['SUBSCRIBE with QoS 3 [MQTT-3.8.3-4]', [0x82, 6, 0, 1, 0, 1, 0x61, 3]],
  ['SUBSCRIBE with a filter that is cut off', [0x82, 5, 0, 1, 0, 9, 0x61]],
  ['SUBSCRIBE with U+0000 [MQTT-1.5.3-2]', [0x82, 6, 0, 1, 0, 1, 0, 0]],
  [
    'SUBSCRIBE with half a surrogate pair [MQTT-1.5.3-1]',
    [0x82, 8, 0, 1, 0, 3, 0xed, 0xa0, 0x80, 0],
  ],
  ['SUBSCRIBE with an empty filter [MQTT-4.7.3-1]', [0x82, 5, 0, 1, 0, 0, 0]],
  ['SUBSCRIBE to a/# b [MQTT-4.7.1-2]', [0x82, 10, 0, 1, 0, 5, 0x61, 0x2f, 0x23, 0x2f, 0x62, 0]],
  ['SUBSCRIBE to a# [MQTT-4.7.1-2]', [0x82, 7, 0, 1, 0, 2, 0x61, 0x23, 0]],
  ['SUBSCRIBE to a+/b [MQTT-4.7.1-3]', [0x82, 9, 0, 1, 0, 4, 0x61, 0x2b, 0x2f, 0x62, 0]],
  ['UNSUBSCRIBE without filters [MQTT-3.10.3-2]', [0xa2, 2, 0, 1]],
  ['UNSUBSCRIBE with flags 0 [MQTT-3.10.1-1]', [0xa0, 5, 0, 1, 0, 1, 0x61]],
  ['PUBLISH with QoS 3 [MQTT-3.3.1-4]', [0x36, 5, 0, 1, 0x61, 0, 1]],
  ['PUBLISH with DUP at QoS 0 [MQTT-3.3.1-2]', [0x38, 3, 0, 1, 0x61]],
  ['PUBLISH with packet identifier 0 [MQTT-2.3.1-1]', [0x32, 5, 0, 1, 0x61, 0, 0]],
  ['PUBLISH shorter than its topic', [0x30, 3, 0, 9, 0x61]],
  ['PUBLISH without a topic length', [0x30, 1, 0]],
  ['PUBACK of three bytes', [0x40, 3, 0, 1, 0]],
  ['PUBACK with identifier 0', [0x40, 2, 0, 0]],
  ['PUBREL with flags 0 [MQTT-3.6.1-1]', [0x60, 2, 0, 1]],
  ['PINGREQ with a payload', [0xc0, 1, 0]],
  ['DISCONNECT with flags [MQTT-3.14.1-1]', [0xe1, 0]],
  ['a second CONNECT [MQTT-3.1.0-2]', [...mqttPacket.generate(CONNECT)]],
];
const CONNECT_BREACHES: readonly [string, number[]][] = [
  ['a packet before CONNECT [MQTT-3.1.0-1]', [0xc0, 0]],
  ['CONNECT with its reserved flag [MQTT-3.1.2-3]', connectBytes(0x03)],
  ['CONNECT with will QoS 3 [MQTT-3.1.2-14]', connectBytes(0x1e)],
  ['CONNECT with will retain but no will [MQTT-3.1.2-15]', connectBytes(0x22)],
  ['CONNECT with a password but no user name [MQTT-3.1.2-22]', connectBytes(0x42)],
  ['CONNECT with bytes behind its fields', [...connectBytes(0x02, [0xff])]],
  ['CONNECT that claims a user name it does not have', connectBytes(0x82)],
  [
    'CONNECT with flags of the fixed header [MQTT-2.2.2-2]',
    [0x11, 12, ...connectBytes(0x02).slice(2)],
  ],
  [
    'CONNECT with a client identifier that is not UTF-8 [MQTT-3.1.3-4]',
    connectBytes(0x02, [], 0xff),
  ],
];

function connectBytes(flags: number, more: number[] = [], idByte = 0x61): number[] {
  const body = [0, 4, 0x4d, 0x51, 0x54, 0x54, 4, flags, 0, 60, 0, 1, idByte, ...more];
  return [0x10, body.length, ...body];
}

describe('a client', () => {
  it.each(BREACHES)('is closed for %s', async (_rule, bytes) => {
    const { framer, fromClient, violations } = createFramer();
    fromClient.write(mqttPacket.generate(CONNECT));
    await settle();
    framer.admit(sinkWith({}));
    fromClient.write(Buffer.from(bytes));
    await settle();
    expect(violations).toHaveLength(1);
    expect(framer.destroyed).toBe(true);
  });

  it.each(CONNECT_BREACHES)('is closed at once for %s', async (_rule, bytes) => {
    const { framer, fromClient, violations, engineGot } = createFramer();
    fromClient.write(Buffer.from(bytes));
    await settle();
    expect(violations).toHaveLength(1);
    expect(framer.destroyed).toBe(true);
    expect(engineGot).toEqual([]);
  });

  it('with a right CONNECT passes all of these', async () => {
    const { fromClient, violations, engineGot, framer } = createFramer();
    fromClient.write(Buffer.from(connectBytes(0x02)));
    await settle();
    expect(violations).toEqual([]);
    expect(Buffer.concat(engineGot)).toEqual(Buffer.from(connectBytes(0x02)));
    framer.destroy();
  });
});

describe('PUBACK', () => {
  it('comes in the order of the PUBLISHes, whatever the order in which they are stored [MQTT-4.6.0-2]', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 20 }).chain((count) =>
          fc.shuffledSubarray(
            Array.from({ length: count }, (_, index) => index),
            { minLength: count },
          ),
        ),
        async (order) => {
          const { framer, fromClient, toClient } = createFramer();
          const taken: DirectPublication[] = [];
          fromClient.write(mqttPacket.generate(CONNECT));
          await settle();
          framer.admit(sinkWith({ take: (_intake, publication) => taken.push(publication) > 0 }));
          for (const index of order.keys()) {
            fromClient.write(
              mqttPacket.generate({
                cmd: 'publish',
                topic: 't',
                payload: 'x',
                qos: 1,
                messageId: index + 1,
                dup: false,
                retain: false,
              }),
            );
          }
          await settle();
          for (const index of order) taken[index]?.acknowledge();
          await settle();
          const sent = parseAll((toClient.read() ?? Buffer.alloc(0)) as Buffer);
          expect(sent).toMatchObject(order.map((_, index) => ({ messageId: index + 1 })));
          framer.destroy();
        },
      ),
      { numRuns: 100 },
    );
  });
});

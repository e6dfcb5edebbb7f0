import mqttPacket, { type Packet } from 'mqtt-packet';
import { createRandom, type Random } from '../../bench/random.ts';
import { mutate } from './fuzz-mutations.ts';

/** Whose keys sessions log in with, and under which names their devices and integrators stand. */
export interface FuzzAccounts {
  readonly organization: string;
  readonly deviceKeys: readonly [string, ...string[]];
  readonly integratorKeys: readonly [string, ...string[]];
}

/** One connection from its first byte to its end. */
export interface FuzzSession {
  readonly number: number;
  readonly transport: 'tcp' | 'ws';
  /** Written one after the other, each after its pause in ms. */
  readonly writes: readonly { readonly pauseMs: number; readonly bytes: Buffer }[];
  /** False: the client never reads what it is sent. */
  readonly isReading: boolean;
  /** How it leaves: resets the connection, ends it, or waits until it is closed, for at most `lingerMs`. */
  readonly leave: 'reset' | 'end' | 'linger';
  readonly lingerMs: number;
}

/**
 * Makes session `number` of a run: valid packets, of which none or some are mutated. The same seed,
 * number and accounts give the same bytes, whatever the others do.
 */
export function makeFuzzSession(seed: number, number: number, accounts: FuzzAccounts): FuzzSession {
  const random = createRandom((Math.imul(seed, 0x9e3779b1) ^ Math.imul(number, 0x85ebca6b)) >>> 0);
  const packets = validPackets(random, accounts);
  const bytes = mutate(
    random,
    packets.map((packet) => encode(packet)),
  );
  return {
    number,
    transport: random.pick(['tcp', 'tcp', 'ws']),
    writes: cut(random, bytes),
    isReading: random.between(0, 10) > 1,
    leave: random.pick(['reset', 'end', 'linger', 'linger']),
    lingerMs: random.between(0, 600),
  };
}

function validPackets(random: Random, accounts: FuzzAccounts): Packet[] {
  const kind = random.pick(['device', 'device', 'device', 'integrator', 'integrator', 'none']);
  const packets: Packet[] = [connectPacket(random, kind, accounts)];
  const count = Math.floor(random.between(0, 14));
  for (let index = 0; index < count; index += 1) packets.push(laterPacket(random, accounts));
  if (random.between(0, 3) < 1) packets.push({ cmd: 'disconnect' });
  return packets;
}

function connectPacket(random: Random, kind: string, accounts: FuzzAccounts): Packet {
  const keys = kind === 'device' ? accounts.deviceKeys : accounts.integratorKeys;
  const key = kind === 'none' ? random.pick(['', 'x', 'pbd_wrong']) : random.pick(keys);
  const clientId = random.pick(['fuzz-a', 'fuzz-b', 'fuzz-c', '__proto__', 'constructor', '']);
  const hasWill = random.between(0, 3) < 1;
  return {
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion: 4,
    clientId: clientId === '' ? 'fuzz' : clientId,
    clean: random.between(0, 3) > 1,
    keepalive: random.pick([0, 1, 2, 60, 65_535]),
    username: random.pick(['device', '', `${accounts.organization}/first`]),
    password: Buffer.from(key),
    ...(hasWill ? { will: willOf(random, accounts) } : {}),
  };
}

function willOf(random: Random, accounts: FuzzAccounts) {
  return {
    topic: topicName(random, accounts),
    payload: payloadOf(random),
    qos: random.pick([0, 1, 2] as const),
    retain: random.between(0, 2) < 1,
  };
}

function laterPacket(random: Random, accounts: FuzzAccounts): Packet {
  const messageId = Math.floor(random.between(1, random.pick([4, 65_535])));
  const cmd = random.pick<LaterCommand>([
    ...(['publish', 'publish', 'publish', 'publish', 'subscribe', 'subscribe'] as const),
    ...(['unsubscribe', 'puback', 'pubrel', 'pubrec', 'pubcomp', 'pingreq'] as const),
  ]);
  switch (cmd) {
    case 'publish': {
      const qos = random.pick([0, 1, 1, 2] as const);
      return {
        cmd,
        qos,
        dup: qos > 0 && random.between(0, 4) < 1,
        retain: random.between(0, 4) < 1,
        topic: topicName(random, accounts),
        payload: payloadOf(random),
        messageId,
      };
    }
    case 'subscribe':
      return { cmd, messageId, subscriptions: subscriptionsOf(random, accounts) };
    case 'unsubscribe': {
      const unsubscriptions = subscriptionsOf(random, accounts).map(({ topic }) => topic);
      return { cmd, messageId, unsubscriptions };
    }
    case 'pingreq':
      return { cmd };
    default:
      return { cmd, messageId };
  }
}

type LaterCommand =
  'publish' | 'subscribe' | 'unsubscribe' | 'puback' | 'pubrel' | 'pubrec' | 'pubcomp' | 'pingreq';

function subscriptionsOf(random: Random, { organization }: FuzzAccounts) {
  const count = Math.floor(random.between(1, 6));
  return Array.from({ length: count }, () => ({
    topic: random.pick([
      ...([
        'v1/me/in/+',
        'v1/me/in/#',
        'v1/me/status',
        '#',
        '+/+',
        '$SYS/#',
        '$share/g/#',
      ] as const),
      `v1/${organization}/+/data`,
      `v1/${organization}/+/status`,
      `v1/${organization}/#`,
      `v1/${organization}/fuzz-1/+`,
      'v1/other/+/data',
      `${'a/'.repeat(60)}+`,
      'v1/__proto__/+/data',
    ]),
    qos: random.pick([0, 1, 2] as const),
  }));
}

function topicName(random: Random, { organization }: FuzzAccounts): string {
  return random.pick([
    ...([
      'v1/me/data',
      'v1/me/data',
      'v1/me/data/temp',
      'v1/me/hello',
      'v1/me/event/door',
    ] as const),
    ...(['v1/me/log', 'v1/me/in/cmd', 'v1/me/status', '$SYS/x', '/', 'a', 'v1/me/ack'] as const),
    `v1/${organization}/fuzz-1/data`,
    `v1/${organization}/first/data`,
    'v1/me/data/__proto__',
    `v1/me/data/${'x'.repeat(200)}`,
    'v1/'.repeat(50),
  ]);
}

function payloadOf(random: Random): Buffer {
  return random.pick([
    () => Buffer.from(`{"temp":${random.between(-10, 40).toFixed(2)}}`),
    () => Buffer.from('{"age":5000,"temp":[1,2,3],"dt":1000}'),
    () => Buffer.from('{"temp":nan,"ok":true,"s":"é"}'),
    () => Buffer.from('{"boot":7,"mps":256,"sleep":0}'),
    () => Buffer.from('21.5'),
    () => Buffer.alloc(0),
    () => Buffer.alloc(Math.floor(random.between(0, 70_000)), 0x5b),
    () => Buffer.from(Array.from({ length: 40 }, () => random.between(0, 256))),
    () => Buffer.from('{"__proto__":{"x":1},"constructor":2,"a":{"b":{"c":{"d":1}}}}'),
  ])();
}

function encode(packet: Packet): Buffer {
  return mqttPacket.generate(packet);
}

/** Cuts the stream at random places into writes with pauses between them. */
function cut(random: Random, bytes: Buffer): FuzzSession['writes'] {
  const pieces = random.pick([1, 1, 2, 5, 20]);
  const cuts = Array.from({ length: pieces - 1 }, () =>
    Math.floor(random.between(0, bytes.length)),
  ).toSorted((a, b) => a - b);
  const edges = [0, ...cuts, bytes.length];
  return edges.slice(1).map((end, index) => ({
    pauseMs: index === 0 ? 0 : random.pick([0, 0, 1, 10]),
    bytes: bytes.subarray(edges[index] ?? 0, end),
  }));
}

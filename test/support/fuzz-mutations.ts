import type { Random } from '../../bench/random.ts';

type Mutation = (random: Random, packets: Buffer[]) => Buffer[];

/** Numbers that lengths are set to: at edges, and far beyond what follows. */
const LENGTHS = [0, 1, 2, 127, 128, 255, 256, 16_383, 65_535] as const;

/** Mutates none to four times, and joins. CONNECT is spared in half of all cases, or few would get past it. */
export function mutate(random: Random, packets: readonly Buffer[]): Buffer {
  const [connect = Buffer.alloc(0), ...rest] = packets;
  const isConnectSpared = rest.length > 0 && random.between(0, 2) < 1;
  let mutable = isConnectSpared ? rest : [connect, ...rest];
  const times = random.pick([0, 1, 1, 2, 4]);
  for (let time = 0; time < times; time += 1) mutable = random.pick(MUTATIONS)(random, mutable);
  return Buffer.concat(isConnectSpared ? [connect, ...mutable] : mutable);
}

const flipBit: Mutation = (random, packets) =>
  changeOne(random, packets, (packet) => {
    const at = indexIn(random, packet);
    packet[at] = (packet[at] ?? 0) ^ (1 << Math.floor(random.between(0, 8)));
    return packet;
  });

const setByte: Mutation = (random, packets) =>
  changeOne(random, packets, (packet) => {
    packet[indexIn(random, packet)] = random.pick([0, 1, 0x7f, 0x80, 0xff]);
    return packet;
  });

/** The lower half of the first byte: DUP, QoS, RETAIN, and what is reserved. */
const changeFlags: Mutation = (random, packets) =>
  changeOne(random, packets, (packet) => {
    packet[0] = ((packet[0] ?? 0) & 0xf0) | Math.floor(random.between(0, 16));
    return packet;
  });

const changeType: Mutation = (random, packets) =>
  changeOne(random, packets, (packet) => {
    packet[0] = ((packet[0] ?? 0) & 0x0f) | (Math.floor(random.between(0, 16)) << 4);
    return packet;
  });

/** The remaining length says something else than what follows. */
const lieAboutLength: Mutation = (random, packets) =>
  changeOne(random, packets, (packet) => {
    const claimed = random.pick([
      [random.pick(LENGTHS) & 0x7f],
      [0xff, 0x7f],
      [0x80, 0x80, 0x01],
      [0xff, 0xff, 0xff, 0x7f],
      [0xff, 0xff, 0xff, 0xff, 0x7f],
      [0x80, 0x00],
    ]);
    return Buffer.concat([packet.subarray(0, 1), Buffer.from(claimed), packet.subarray(2)]);
  });

/** Two bytes anywhere become a length that may not fit. */
const setLength: Mutation = (random, packets) =>
  changeOne(random, packets, (packet) => {
    if (packet.length < 3) return packet;
    packet.writeUInt16BE(random.pick(LENGTHS), Math.floor(random.between(0, packet.length - 1)));
    return packet;
  });

const truncate: Mutation = (random, packets) =>
  changeOne(random, packets, (packet) => packet.subarray(0, indexIn(random, packet)));

const insert: Mutation = (random, packets) =>
  changeOne(random, packets, (packet) => {
    const at = indexIn(random, packet);
    const count = Math.floor(random.between(1, 20));
    const bytes = Buffer.from(Array.from({ length: count }, () => random.between(0, 256)));
    return Buffer.concat([packet.subarray(0, at), bytes, packet.subarray(at)]);
  });

const remove: Mutation = (random, packets) =>
  changeOne(random, packets, (packet) => {
    const at = indexIn(random, packet);
    const end = at + Math.floor(random.between(1, 8));
    return Buffer.concat([packet.subarray(0, at), packet.subarray(end)]);
  });

const duplicate: Mutation = (random, packets) => {
  const at = Math.floor(random.between(0, packets.length));
  const copies = Array.from({ length: random.pick([1, 2, 50]) }, () => packets[at] ?? []);
  return packets.toSpliced(at, 0, ...copies.map((copy) => Buffer.from(copy)));
};

const leaveOut: Mutation = (random, packets) =>
  packets.toSpliced(Math.floor(random.between(0, packets.length)), 1);

const swap: Mutation = (random, packets) => {
  const at = Math.floor(random.between(0, packets.length - 1));
  const pair = packets.slice(at, at + 2).toReversed();
  return packets.toSpliced(at, pair.length, ...pair);
};

const MUTATIONS: readonly [Mutation, ...Mutation[]] = [
  flipBit,
  flipBit,
  setByte,
  setByte,
  changeFlags,
  changeType,
  lieAboutLength,
  setLength,
  setLength,
  truncate,
  insert,
  remove,
  duplicate,
  leaveOut,
  swap,
];

function changeOne(
  random: Random,
  packets: Buffer[],
  change: (packet: Buffer) => Buffer,
): Buffer[] {
  const at = Math.floor(random.between(0, packets.length));
  const packet = packets[at];
  if (packet === undefined || packet.length === 0) return packets;
  return packets.with(at, change(Buffer.from(packet)));
}

function indexIn(random: Random, packet: Buffer): number {
  return Math.floor(random.between(0, packet.length));
}

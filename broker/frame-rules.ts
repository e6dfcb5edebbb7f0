// HOT PATH: once per packet; see bench/RESULTS.md
import { isUtf8 } from 'node:buffer';

/** MQTT control packet types that a client may send [MQTT-2.2.1]. */
export const PACKET = {
  connect: 1,
  publish: 3,
  puback: 4,
  pubrec: 5,
  pubrel: 6,
  pubcomp: 7,
  subscribe: 8,
  unsubscribe: 10,
  pingreq: 12,
  disconnect: 14,
} as const;

const HASH = 0x23;
const PLUS = 0x2b;
const SLASH = 0x2f;

/** Flags of the fixed header that a type must have [MQTT-2.2.2-2]; PUBLISH has rules of its own. */
const FLAGS: readonly (number | null)[] = [
  null,
  0,
  null,
  null,
  0,
  0,
  2,
  0,
  2,
  null,
  2,
  null,
  0,
  null,
  0,
  null,
];

/**
 * Says what is wrong with one whole packet of a client, by the rules of MQTT 3.1.1 that can be told from
 * the packet alone. What the engine behind checks by itself is left to it.
 * @param bytes holds the packet; its variable header starts at `start` and its payload ends at `end`.
 * @param first first byte of the fixed header.
 * @returns null, or the reason with its clause: the connection must be closed [MQTT-4.8.0-1].
 */
export function frameFault(
  first: number,
  bytes: Buffer,
  start: number,
  end: number,
): string | null {
  const type = first >> 4;
  if (type === PACKET.publish) return publishFault(first & 0x0f, bytes, start, end);
  const flags = FLAGS[type] ?? null;
  if (flags === null) return 'packet type that no client sends [MQTT-2.2.1]';
  if (flags !== (first & 0x0f)) return 'reserved flags of the fixed header [MQTT-2.2.2-2]';
  switch (type) {
    case PACKET.connect:
      return connectFault(bytes, start, end);
    case PACKET.subscribe:
      return filtersFault(bytes, start, end, true);
    case PACKET.unsubscribe:
      return filtersFault(bytes, start, end, false);
    case PACKET.pingreq:
    case PACKET.disconnect:
      return start === end ? null : 'remaining length of a packet without content [MQTT-3.12.1]';
    default:
      if (end - start !== 2) return 'remaining length of an acknowledgement [MQTT-3.4.1]';
      return packetIdFault(bytes, start);
  }
}

function publishFault(flags: number, bytes: Buffer, start: number, end: number): string | null {
  const qos = (flags >> 1) & 3;
  if (qos === 3) return 'QoS 3 [MQTT-3.3.1-4]';
  if (qos === 0 && (flags & 8) !== 0) return 'DUP at QoS 0 [MQTT-3.3.1-2]';
  if (start + 2 > end) return 'PUBLISH without a topic [MQTT-3.3.2-1]';
  const topicEnd = start + 2 + bytes.readUInt16BE(start);
  if (topicEnd + (qos > 0 ? 2 : 0) > end) return 'PUBLISH shorter than its topic [MQTT-3.3.2-1]';
  return qos > 0 ? packetIdFault(bytes, topicEnd) : null;
}

/** [MQTT-2.3.1-1] A packet identifier is never 0. */
function packetIdFault(bytes: Buffer, at: number): string | null {
  return bytes.readUInt16BE(at) === 0 ? 'packet identifier 0 [MQTT-2.3.1-1]' : null;
}

function filtersFault(bytes: Buffer, start: number, end: number, hasQos: boolean): string | null {
  if (start + 2 > end) return 'no packet identifier [MQTT-2.3.1-1]';
  const fault = packetIdFault(bytes, start);
  if (fault !== null) return fault;
  let at = start + 2;
  if (at === end) return 'no topic filter [MQTT-3.8.3-3, MQTT-3.10.3-2]';
  while (at < end) {
    const next = textEnd(bytes, at, end);
    if (next < 0) return 'topic filter that is cut off or not UTF-8 [MQTT-3.8.3-1]';
    const filterFault = wildcardFault(bytes, at + 2, next);
    if (filterFault !== null) return filterFault;
    at = next;
    if (!hasQos) continue;
    if (at >= end || (bytes[at] ?? 0) > 2) return 'requested QoS [MQTT-3.8.3-4]';
    at += 1;
  }
  return null;
}

/** A wildcard stands for a whole level, and `#` for the last ones. */
function wildcardFault(bytes: Buffer, start: number, end: number): string | null {
  if (start === end) return 'empty topic filter [MQTT-4.7.3-1]';
  for (let at = start; at < end; at += 1) {
    const char = bytes[at];
    if (char !== HASH && char !== PLUS) continue;
    const isLevelStart = at === start || bytes[at - 1] === SLASH;
    const isLevelEnd = at + 1 === end || bytes[at + 1] === SLASH;
    if (!isLevelStart || !isLevelEnd) return 'wildcard inside a level [MQTT-4.7.1-2, MQTT-4.7.1-3]';
    if (char === HASH && at + 1 < end) return '# before the last level [MQTT-4.7.1-2]';
  }
  return null;
}

const PROTOCOL_NAMES: ReadonlySet<string> = new Set(['MQTT', 'MQIsdp']);

/**
 * Whether a whole CONNECT asks for another protocol level than those of MQTT 3.1 and 3.1.1. It is to be
 * answered with return code 1 [MQTT-3.1.2-2]. The bit for bridges that some brokers use is no part of it.
 */
export function hasOtherLevel(bytes: Buffer, start: number, end: number): boolean {
  const levelAt = textEnd(bytes, start, end);
  if (levelAt < 0 || levelAt >= end) return false;
  if (!PROTOCOL_NAMES.has(bytes.toString('latin1', start + 2, levelAt))) return false;
  const level = bytes[levelAt];
  return level !== 3 && level !== 4;
}

/** Behind protocol name, level, flags and keep alive; another level has been answered before. */
function connectFault(bytes: Buffer, start: number, end: number): string | null {
  const levelAt = textEnd(bytes, start, end);
  if (levelAt < 0 || levelAt + 4 > end) return 'CONNECT is cut off [MQTT-3.1.2]';
  const level = bytes[levelAt] ?? 0;
  if (level !== 4 && level !== 3) return null;
  const flags = bytes[levelAt + 1] ?? 0;
  return connectFlagsFault(flags) ?? connectFieldsFault(flags, bytes, levelAt + 4, end);
}

/** The payload of CONNECT: the fields that its flags announce, in this order, and nothing else. */
function connectFieldsFault(
  flags: number,
  bytes: Buffer,
  start: number,
  end: number,
): string | null {
  let at = textEnd(bytes, start, end);
  if (at < 0) return 'client identifier that is cut off or not UTF-8 [MQTT-3.1.3-4]';
  if ((flags & 0x04) !== 0) {
    at = textEnd(bytes, at, end);
    if (at >= 0) at = binaryEnd(bytes, at, end);
    if (at < 0) return 'will that is cut off, or whose topic is not UTF-8 [MQTT-3.1.3-10]';
  }
  if ((flags & 0x80) !== 0) at = textEnd(bytes, at, end);
  if (at < 0) return 'user name that is cut off or not UTF-8 [MQTT-3.1.3-11]';
  if ((flags & 0x40) !== 0) at = binaryEnd(bytes, at, end);
  return at === end ? null : 'CONNECT longer or shorter than its fields [MQTT-3.1.3-1]';
}

function connectFlagsFault(flags: number): string | null {
  const hasWill = (flags & 0x04) !== 0;
  const willQos = (flags >> 3) & 3;
  if ((flags & 0x01) !== 0) return 'reserved connect flag [MQTT-3.1.2-3]';
  if (willQos === 3) return 'will QoS 3 [MQTT-3.1.2-14]';
  if (!hasWill && (flags & 0x38) !== 0) return 'will flags without a will [MQTT-3.1.2-13]';
  const hasPasswordOnly = (flags & 0xc0) === 0x40;
  return hasPasswordOnly ? 'password without user name [MQTT-3.1.2-22]' : null;
}

/** Where a UTF-8 string ends that starts with its length at `at`; -1 when it is none [MQTT-1.5.3-1]. */
function textEnd(bytes: Buffer, at: number, end: number): number {
  const next = binaryEnd(bytes, at, end);
  if (next < 0) return -1;
  const text = bytes.subarray(at + 2, next);
  return text.includes(0) || !isUtf8(text) ? -1 : next;
}

function binaryEnd(bytes: Buffer, at: number, end: number): number {
  if (at + 2 > end) return -1;
  const next = at + 2 + bytes.readUInt16BE(at);
  return next > end ? -1 : next;
}

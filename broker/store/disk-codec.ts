import { createHash } from 'node:crypto';
import type { OutgoingMessage } from '../message.ts';

/** A message as it lies on disk. */
export interface StoredMessage {
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: 0 | 1 | 2;
  readonly retain: boolean;
  /** When it was stored, in milliseconds since 1970. */
  readonly storedAtMs: number;
  /** JSON of what else the engine wants to see again; empty for messages of ours. */
  readonly extras: string;
}

const FLAG_RETAIN = 4;
const FLAG_EXTRAS = 8;
/** Flags, time of storing, length of the topic. */
const HEAD_BYTES = 9;
const EXTRAS_LENGTH_BYTES = 4;
/** LMDB takes keys of 1 978 bytes; longer topics are cut here and told apart by their hash. */
const TOPIC_KEY_BYTES = 1900;

/**
 * One record: flags, time (6 bytes), topic length (2), topic, with extras their length (4) and JSON, and
 * the payload up to the end. A topic has at most 65 535 bytes, as in MQTT.
 */
export function encodeMessage(
  message: Omit<StoredMessage, 'storedAtMs' | 'extras'>,
  storedAtMs: number,
  extras = '',
): Buffer {
  const topicBytes = Buffer.byteLength(message.topic);
  const extrasBytes = extras === '' ? 0 : EXTRAS_LENGTH_BYTES + Buffer.byteLength(extras);
  const record = Buffer.allocUnsafeSlow(
    HEAD_BYTES + topicBytes + extrasBytes + message.payload.length,
  );
  record[0] =
    message.qos | (message.retain ? FLAG_RETAIN : 0) | (extrasBytes > 0 ? FLAG_EXTRAS : 0);
  record.writeUIntBE(storedAtMs, 1, 6);
  record.writeUInt16BE(topicBytes, 7);
  record.write(message.topic, HEAD_BYTES);
  let at = HEAD_BYTES + topicBytes;
  if (extrasBytes > 0) {
    record.writeUInt32BE(extrasBytes - EXTRAS_LENGTH_BYTES, at);
    record.write(extras, at + EXTRAS_LENGTH_BYTES);
    at += extrasBytes;
  }
  message.payload.copy(record, at);
  return record;
}

/** The message of a record of {@link encodeMessage}. The payload shares the record's memory. */
export function decodeMessage(record: Buffer): StoredMessage {
  const flags = record[0] ?? 0;
  const topicEnd = HEAD_BYTES + record.readUInt16BE(7);
  const hasExtras = (flags & FLAG_EXTRAS) !== 0;
  const extrasStart = topicEnd + (hasExtras ? EXTRAS_LENGTH_BYTES : 0);
  const extrasEnd = extrasStart + (hasExtras ? record.readUInt32BE(topicEnd) : 0);
  return {
    topic: record.toString('utf8', HEAD_BYTES, topicEnd),
    payload: record.subarray(extrasEnd),
    qos: (flags & 3) as 0 | 1 | 2,
    retain: (flags & FLAG_RETAIN) !== 0,
    storedAtMs: storedAtOf(record),
    extras: record.toString('utf8', extrasStart, extrasEnd),
  };
}

/** Whether a row of the disk is such a record; damage inside values is found by nothing else. */
export function isRecord(row: Buffer): boolean {
  if (row.length < HEAD_BYTES) return false;
  const topicEnd = HEAD_BYTES + row.readUInt16BE(7);
  const hasExtras = ((row[0] ?? 0) & FLAG_EXTRAS) !== 0;
  if (!hasExtras) return topicEnd <= row.length;
  const extrasStart = topicEnd + EXTRAS_LENGTH_BYTES;
  return extrasStart <= row.length && extrasStart + row.readUInt32BE(topicEnd) <= row.length;
}

/** The topic of a record of {@link encodeMessage}. */
export function topicOf(record: Buffer): string {
  return record.toString('utf8', HEAD_BYTES, HEAD_BYTES + record.readUInt16BE(7));
}

/** When a record of {@link encodeMessage} was stored, in milliseconds since 1970. */
export function storedAtOf(record: Buffer): number {
  return record.readUIntBE(1, 6);
}

/** A stored message as subscribers get it: nobody is granted QoS 2. */
export function toOutgoing(
  { topic, payload, qos }: StoredMessage,
  retain: boolean,
): OutgoingMessage {
  return { topic, payload, qos: qos === 0 ? 0 : 1, retain };
}

/**
 * Bytes of a text, one character each. Keys are such strings: they compare as their bytes do, and serve
 * as keys of a Map.
 */
export function keyText(text: string): string {
  const bytes = Buffer.from(text);
  return bytes.length === text.length ? text : bytes.toString('latin1');
}

/** Key of a topic below the table's letter; ordered as the topic's bytes, never longer than LMDB allows. */
export function topicKey(topic: string): string {
  const key = keyText(topic);
  if (key.length <= TOPIC_KEY_BYTES) return key;
  // U+0000 is in no topic [MQTT-1.5.3-2], so that no short topic has such a key.
  return `${key.slice(0, TOPIC_KEY_BYTES)}\0${hashKey(topic)}`;
}

/** Start of the keys of all topics that begin with `prefix`. */
export function topicPrefixKey(prefix: string): string {
  return keyText(prefix).slice(0, TOPIC_KEY_BYTES);
}

/** 32 bytes that stand for a text of any length. */
export function hashKey(text: string): string {
  return createHash('sha256').update(text).digest('binary');
}

/** A whole number below 2^32 as four bytes of a key. */
export function numberKey(value: number): string {
  return String.fromCharCode(value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255);
}

/** A whole number below 2^48 as six bytes of a key. */
export function sequenceKey(value: number): string {
  const high = Math.floor(value / 0x1_0000_0000);
  return String.fromCharCode(high >>> 8, high & 255) + numberKey(value >>> 0);
}

/** The number in a key of {@link numberKey}. */
export function readNumberKey(key: string, at: number): number {
  return Buffer.from(key.slice(at, at + 4), 'latin1').readUInt32BE();
}

/** The number in a key of {@link sequenceKey}. */
export function readSequenceKey(key: string, at: number): number {
  return Buffer.from(key.slice(at, at + 6), 'latin1').readUIntBE(0, 6);
}

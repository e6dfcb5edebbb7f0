// HOT PATH: once per message that is spooled or drained
import { crc32 } from 'node:zlib';
import { Refusal, type RefusalCode } from '../../firmware-protocol/contract.ts';
import type { TimeBasis } from '../../firmware-protocol/time.ts';
import type { Channel } from '../message.ts';

/** A message as it waits on disk: all that is needed to take it in again with the same result. */
export interface SpoolRecord {
  readonly organizationId: number;
  readonly deviceId: number;
  /** The boot that its numbers belong to, 32 bits without sign; null when the device named none. */
  readonly boot: number | null;
  /** When it was received, integer microseconds since 1970. */
  readonly receivedMicros: number;
  /** What was known of the device's clock then. */
  readonly basis: TimeBasis;
  readonly channel: Channel;
  /** Metric of a scalar, name of an event; at most 65 535 bytes of UTF-8, as every text here. */
  readonly name: string | null;
  /** The channel as the device is told of it on `in/err`. */
  readonly word: string;
  readonly topic: string;
  readonly qos: 0 | 1 | 2;
  /** Why the broker refused the message; then it goes to quarantine unread. */
  readonly refusal: Refusal | null;
  /** Whether the device was in quarantine as a whole. */
  readonly isKeptApart: boolean;
  /** Numbers (`seq`) of its samples that have one, at most 65 535. Only for the duplicate check. */
  readonly seqs: readonly number[];
  /** As published. One that was read shares its memory with the other records of that read. */
  readonly payload: Buffer;
}

/**
 * Where a record lies in the log, and what must be known of it when it is drained. Opaque outside
 * `ingest/spool`.
 */
export interface SpoolPosition {
  /** Number of the segment. */
  readonly segment: number;
  /** Where the record before it ended; damaged bytes between the two belong to this one. */
  readonly start: number;
  readonly end: number;
  readonly deviceId: number;
  readonly boot: number | null;
  readonly hasSeqs: boolean;
  readonly receivedMicros: number;
}

/** The part of a {@link SpoolPosition} that is not in the record itself. */
export type SpoolPlace = Pick<SpoolPosition, 'segment' | 'start' | 'end'>;

/** A record that was read, and its place. */
export interface PlacedRecord {
  readonly record: SpoolRecord;
  readonly position: SpoolPosition;
}

/** As the log has them; only ever add to the end. */
const CHANNELS = [
  'data',
  'scalar',
  'senml',
  'event',
  'log',
  'refused',
] as const satisfies Channel[];

/*
 * A record, little endian. Marker and CRC-32 frame it; the CRC goes over all behind it and begins with the
 * marker, which is drawn for each segment: nothing that a device publishes can pass for a record.
 */
const AT_CRC = 4;
const AT_LENGTH = 8;
const AT_CHANNEL = 12;
const AT_FLAGS = 13;
const AT_SEQS = 14;
const AT_ORGANIZATION = 16;
const AT_DEVICE = 20;
const AT_BOOT = 24;
const AT_NAME = 28;
const AT_WORD = 30;
const AT_TOPIC = 32;
const AT_CODE = 34;
const AT_DETAIL = 36;
const AT_RECEIVED = 38;
const AT_OFFSET = 46;
const AT_BOOT_TIME = 54;
/** Then the numbers, 8 bytes each, name, word, topic, code, detail and payload. */
const FIXED_BYTES = 62;

const QOS_MASK = 3;
const HAS_BOOT = 4;
const HAS_NAME = 8;
const HAS_REFUSAL = 16;
const HAS_OFFSET = 32;
const HAS_BOOT_TIME = 64;
const IS_KEPT_APART = 128;

/** Bytes that a record takes on disk. */
export function spoolBytes(record: SpoolRecord): number {
  const { name, refusal } = record;
  let bytes = FIXED_BYTES + record.payload.length + record.seqs.length * 8;
  bytes += Buffer.byteLength(record.word) + Buffer.byteLength(record.topic);
  if (name !== null) bytes += Buffer.byteLength(name);
  if (refusal !== null)
    bytes += Buffer.byteLength(refusal.code) + Buffer.byteLength(refusal.detail);
  return bytes;
}

/** An upper bound of {@link spoolBytes} that costs nothing. */
export function spoolBytesMax({ payload, seqs, word, topic, name, refusal }: SpoolRecord): number {
  const texts = word.length + topic.length + (name?.length ?? 0);
  const reasons = refusal === null ? 0 : refusal.code.length + refusal.detail.length;
  return FIXED_BYTES + payload.length + seqs.length * 8 + (texts + reasons) * 3;
}

/**
 * Writes a record; {@link spoolBytesMax} bytes must be free.
 * @returns where it ends.
 */
export function encodeRecord(
  record: SpoolRecord,
  target: Buffer,
  start: number,
  marker: number,
): number {
  const { basis, refusal } = record;
  target.writeUInt32LE(marker, start);
  target[start + AT_CHANNEL] = CHANNELS.indexOf(record.channel);
  target[start + AT_FLAGS] = flagsOf(record);
  target.writeUInt16LE(record.seqs.length, start + AT_SEQS);
  target.writeUInt32LE(record.organizationId, start + AT_ORGANIZATION);
  target.writeUInt32LE(record.deviceId, start + AT_DEVICE);
  target.writeUInt32LE(record.boot ?? 0, start + AT_BOOT);
  target.writeDoubleLE(record.receivedMicros, start + AT_RECEIVED);
  target.writeDoubleLE(basis.offsetMicros ?? 0, start + AT_OFFSET);
  target.writeDoubleLE(basis.bootMicros ?? 0, start + AT_BOOT_TIME);
  let at = start + FIXED_BYTES;
  for (const seq of record.seqs) at = target.writeDoubleLE(seq, at);
  at = writeText(target, record.name ?? '', at, start + AT_NAME);
  at = writeText(target, record.word, at, start + AT_WORD);
  at = writeText(target, record.topic, at, start + AT_TOPIC);
  at = writeText(target, refusal?.code ?? '', at, start + AT_CODE);
  at = writeText(target, refusal?.detail ?? '', at, start + AT_DETAIL);
  at += record.payload.copy(target, at);
  target.writeUInt32LE(at - start, start + AT_LENGTH);
  const checksum = crc32(target.subarray(start + AT_LENGTH, at), marker);
  target.writeUInt32LE(checksum, start + AT_CRC);
  return at;
}

/** What stands at a place of a segment. */
export type Frame =
  /** No whole record, or one that is not as it was written. */
  | 'damaged'
  /** The chunk ends before the record does; so many bytes from its start are needed. */
  | { readonly bytesNeeded: number }
  /** A whole record. */
  | number;

/**
 * Looks at the record that starts at `start` of `chunk`.
 * @param bytesLeft of the segment from there on.
 * @returns its bytes.
 */
export function frameAt(chunk: Buffer, start: number, bytesLeft: number, marker: number): Frame {
  if (bytesLeft < FIXED_BYTES) return 'damaged';
  if (chunk.length - start < FIXED_BYTES) return { bytesNeeded: FIXED_BYTES };
  if (chunk.readUInt32LE(start) !== marker) return 'damaged';
  const length = chunk.readUInt32LE(start + AT_LENGTH);
  if (length < FIXED_BYTES || length > bytesLeft) return 'damaged';
  const end = start + length;
  if (end > chunk.length) return { bytesNeeded: length };
  const checksum = crc32(chunk.subarray(start + AT_LENGTH, end), marker);
  return checksum === chunk.readUInt32LE(start + AT_CRC) ? length : 'damaged';
}

/** Reads a record that {@link frameAt} found whole. Its payload shares the memory of the chunk. */
export function decodeRecord(chunk: Buffer, start: number, end: number): SpoolRecord {
  const flags = chunk[start + AT_FLAGS] ?? 0;
  let at = start + FIXED_BYTES + chunk.readUInt16LE(start + AT_SEQS) * 8;
  const text = (lengthAt: number): string => {
    const from = at;
    at += chunk.readUInt16LE(start + lengthAt);
    return at === from ? '' : chunk.toString('utf8', from, at);
  };
  const name = text(AT_NAME);
  const word = text(AT_WORD);
  const topic = text(AT_TOPIC);
  const code = text(AT_CODE);
  const detail = text(AT_DETAIL);
  return {
    organizationId: chunk.readUInt32LE(start + AT_ORGANIZATION),
    deviceId: chunk.readUInt32LE(start + AT_DEVICE),
    boot: bootAt(chunk, start),
    receivedMicros: chunk.readDoubleLE(start + AT_RECEIVED),
    basis: {
      offsetMicros: (flags & HAS_OFFSET) === 0 ? null : chunk.readDoubleLE(start + AT_OFFSET),
      bootMicros: (flags & HAS_BOOT_TIME) === 0 ? null : chunk.readDoubleLE(start + AT_BOOT_TIME),
    },
    channel: CHANNELS[chunk[start + AT_CHANNEL] ?? -1] ?? 'refused',
    name: (flags & HAS_NAME) === 0 ? null : name,
    word,
    topic,
    qos: (flags & QOS_MASK) as 0 | 1 | 2,
    refusal: (flags & HAS_REFUSAL) === 0 ? null : new Refusal(code as RefusalCode, detail),
    isKeptApart: (flags & IS_KEPT_APART) !== 0,
    seqs: seqsAt(chunk, start),
    payload: chunk.subarray(at, end),
  };
}

/** What must be known of a record while it waits, without reading the rest. */
export function positionAt(chunk: Buffer, start: number, place: SpoolPlace): SpoolPosition {
  return {
    segment: place.segment,
    start: place.start,
    end: place.end,
    deviceId: chunk.readUInt32LE(start + AT_DEVICE),
    boot: bootAt(chunk, start),
    hasSeqs: chunk.readUInt16LE(start + AT_SEQS) > 0,
    receivedMicros: chunk.readDoubleLE(start + AT_RECEIVED),
  };
}

/** The numbers of a record. */
export function seqsAt(chunk: Buffer, start: number): number[] {
  const count = chunk.readUInt16LE(start + AT_SEQS);
  const seqs: number[] = [];
  for (let index = 0; index < count; index += 1) {
    seqs.push(chunk.readDoubleLE(start + FIXED_BYTES + index * 8));
  }
  return seqs;
}

function bootAt(chunk: Buffer, start: number): number | null {
  return ((chunk[start + AT_FLAGS] ?? 0) & HAS_BOOT) === 0
    ? null
    : chunk.readUInt32LE(start + AT_BOOT);
}

function flagsOf({ qos, boot, name, refusal, basis, isKeptApart }: SpoolRecord): number {
  let flags: number = qos;
  if (boot !== null) flags |= HAS_BOOT;
  if (name !== null) flags |= HAS_NAME;
  if (refusal !== null) flags |= HAS_REFUSAL;
  if (basis.offsetMicros !== null) flags |= HAS_OFFSET;
  if (basis.bootMicros !== null) flags |= HAS_BOOT_TIME;
  if (isKeptApart) flags |= IS_KEPT_APART;
  return flags;
}

function writeText(target: Buffer, text: string, at: number, lengthAt: number): number {
  const bytes = text === '' ? 0 : target.write(text, at);
  target.writeUInt16LE(bytes, lengthAt);
  return at + bytes;
}

import { crc32 } from 'node:zlib';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { SpoolPosition } from './spool-record.ts';

/** Bytes at the start of a segment that are no record. */
export const SEGMENT_HEADER_BYTES = 32;
/** Version of all that is written to the folder. Another one is not read. */
export const SPOOL_FORMAT = 1;
const MAGIC = Buffer.from('PUBSPOOL', 'latin1');
const NAME = /^(\d{12})\.(log|damaged)$/;

/** What a segment's header says, or why it says nothing. */
export type SegmentHeader =
  | { readonly kind: 'whole'; readonly number: number; readonly marker: number }
  /** Never written to the end: nothing in the segment was acknowledged. */
  | { readonly kind: 'torn' }
  | { readonly kind: 'damaged' }
  | { readonly kind: 'foreign'; readonly format: number };

/** File of a segment. */
export function segmentPath(folder: string, number: number, ending = 'log'): string {
  return join(folder, `${String(number).padStart(12, '0')}.${ending}`);
}

/** The number in a file's name; null when it is no segment. */
export function segmentNumber(name: string): { number: number; isDamaged: boolean } | null {
  const [, digits, ending] = NAME.exec(name) ?? [];
  return digits === undefined ? null : { number: Number(digits), isDamaged: ending === 'damaged' };
}

/** A random value that no byte of a record's frame is likely to be by chance; never 0. */
export function drawMarker(): number {
  return randomBytes(4).readUInt32LE() || 1;
}

/** The first bytes of a segment. */
export function encodeSegmentHeader(number: number, marker: number): Buffer {
  const header = Buffer.alloc(SEGMENT_HEADER_BYTES);
  MAGIC.copy(header);
  header.writeUInt32LE(SPOOL_FORMAT, 8);
  header.writeDoubleLE(number, 12);
  header.writeUInt32LE(marker, 20);
  header.writeUInt32LE(crc32(header.subarray(0, 28)), 28);
  return header;
}

/** Reads the first bytes of a segment. */
export function decodeSegmentHeader(header: Buffer): SegmentHeader {
  if (header.length < SEGMENT_HEADER_BYTES || header.every((byte) => byte === 0)) {
    return { kind: 'torn' };
  }
  if (crc32(header.subarray(0, 28)) !== header.readUInt32LE(28)) return { kind: 'damaged' };
  const format = header.readUInt32LE(8);
  if (!header.subarray(0, 8).equals(MAGIC)) return { kind: 'damaged' };
  if (format !== SPOOL_FORMAT) return { kind: 'foreign', format };
  return {
    kind: 'whole',
    number: header.readDoubleLE(12),
    marker: header.readUInt32LE(20),
  };
}

/** One file of the log as memory knows it: how far it is written, and how far drained. */
export class Segment {
  readonly number: number;
  readonly path: string;
  /** Stands before each record and seeds its checksum. */
  readonly marker: number;
  /** Where the last record on disk ends. Nothing behind it is read. */
  end = SEGMENT_HEADER_BYTES;
  /** What the file takes, at most. */
  fileBytes = SEGMENT_HEADER_BYTES;
  /** Whether nothing more will be written to it. */
  isSealed = false;
  /** Whole records. */
  messages = 0;
  /** Everything before it is drained. */
  drainedEnd = SEGMENT_HEADER_BYTES;
  /** Records before {@link drainedEnd}. */
  drainedMessages = 0;
  /** When the last record before {@link drainedEnd}, or else the first of all, was received. */
  oldestMicros = 0;
  /** Damaged places that are known, from their start to where they end. */
  readonly damage = new Map<number, number>();
  /** Drained out of order: by start. */
  readonly #ahead = new Map<number, SpoolPosition>();

  constructor(folder: string, number: number, marker: number) {
    this.number = number;
    this.path = segmentPath(folder, number);
    this.marker = marker;
  }

  /** Records that are not drained. */
  get pendingMessages(): number {
    return Math.max(0, this.messages - this.drainedMessages - this.#ahead.size);
  }

  /** Whether all of it is drained, but for damage at its end. */
  get isDrained(): boolean {
    return this.drainedEnd >= this.end || this.damage.get(this.drainedEnd) === this.end;
  }

  /** Notes records that are on disk now. */
  grow(end: number, messages: number, firstMicros: number): void {
    if (this.pendingMessages === 0) this.oldestMicros = firstMicros;
    this.end = end;
    this.messages += messages;
  }

  /** Whether the record that starts there is drained. */
  hasDrained(start: number): boolean {
    return start < this.drainedEnd || this.#ahead.has(start);
  }

  /** @returns false when the record was drained before. */
  drain(position: SpoolPosition): boolean {
    if (this.hasDrained(position.start)) return false;
    if (position.start > this.drainedEnd) {
      this.#ahead.set(position.start, position);
      return true;
    }
    this.#advance(position);
    for (;;) {
      const next = this.#ahead.get(this.drainedEnd);
      if (next === undefined) return true;
      this.#ahead.delete(this.drainedEnd);
      this.#advance(next);
    }
  }

  #advance({ end, receivedMicros }: SpoolPosition): void {
    this.drainedEnd = end;
    this.drainedMessages += 1;
    this.oldestMicros = receivedMicros;
  }
}

import { isRecord, readSequenceKey, sequenceKey, storedAtOf } from './disk-codec.ts';
import type { QueueDropReason, StoreTotals } from './disk-metrics.ts';
import type { DiskWriter } from './disk-writer.ts';

/** Bounds of the queue of one session. */
export interface QueueLimits {
  readonly queueMessagesMax: number;
  /** Of records: topic, payload and nine bytes each. */
  readonly queueBytesMax: number;
  readonly queueAgeMaxMs: number;
}

/** What a {@link StoredQueue} is made of. */
export interface StoredQueueParts {
  readonly writer: DiskWriter;
  /** Start of the keys of its messages. */
  readonly messagePrefix: string;
  /** Start of the keys of the packet identifiers under which messages were sent. */
  readonly packetIdPrefix: string;
  readonly limits: QueueLimits;
  readonly totals: StoreTotals;
}

/** A message of a queue as it lies on disk. */
export interface QueuedRecord {
  readonly sequence: number;
  readonly record: Buffer;
  /** Undefined when it was not sent yet. */
  readonly packetId: number | undefined;
}

/** Sequences are six bytes of a key. */
const SEQUENCE_BYTES = 6;

/**
 * The messages of one session that wait for its client or for its acknowledgement. Messages lie on disk;
 * their sequences and sizes are in memory too, some 40 bytes each. Beyond a bound the oldest go first.
 */
export class StoredQueue {
  readonly #parts: StoredQueueParts;
  /** Bytes of each record by its sequence, in rising order. */
  readonly #sizes = new Map<number, number>();
  readonly #packetIds = new Map<number, number>();
  #bytes = 0;
  #nextSequence = 1;

  constructor(parts: StoredQueueParts) {
    this.#parts = parts;
  }

  get messages(): number {
    return this.#sizes.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Takes in a message found on disk at start; to be called in the order of keys. */
  restore(key: string, recordBytes: number): void {
    this.#add(readSequenceKey(key, this.#parts.messagePrefix.length), recordBytes);
  }

  /** Takes in a packet identifier found on disk at start; false when its message is gone. */
  restorePacketId(key: string, packetId: number): boolean {
    const sequence = readSequenceKey(key, this.#parts.packetIdPrefix.length);
    if (!this.#sizes.has(sequence)) return false;
    this.#packetIds.set(sequence, packetId);
    return true;
  }

  /** Appends a record and drops the oldest beyond the bounds; one that is too large alone is dropped itself. */
  append(record: Buffer): void {
    const { limits, writer } = this.#parts;
    if (record.length > limits.queueBytesMax) return this.#countDrop('bytes');
    while (this.#sizes.size >= limits.queueMessagesMax) this.#dropOldest('count');
    while (this.#bytes + record.length > limits.queueBytesMax) this.#dropOldest('bytes');
    const sequence = this.#nextSequence;
    this.#add(sequence, record.length);
    writer.put(this.#messageKey(sequence), record);
  }

  /** At most `limit` records behind a sequence, oldest first. */
  read(afterSequence: number, limit: number): QueuedRecord[] {
    const found: QueuedRecord[] = [];
    for (const sequence of this.#sequencesAfter(afterSequence)) {
      if (found.length >= limit) break;
      const record = this.#parts.writer.get(this.#messageKey(sequence));
      if (record === undefined || !isRecord(record)) continue;
      found.push({ sequence, record, packetId: this.#packetIds.get(sequence) });
    }
    return found;
  }

  /** Notes under which packet identifier a message was sent. */
  markSent(sequence: number, packetId: number): void {
    if (!this.#sizes.has(sequence)) return;
    const value = Buffer.allocUnsafeSlow(2);
    value.writeUInt16BE(packetId);
    this.#packetIds.set(sequence, packetId);
    this.#parts.writer.put(this.#packetIdKey(sequence), value);
  }

  remove(sequence: number): void {
    const bytes = this.#sizes.get(sequence);
    if (bytes === undefined) return;
    const { writer, totals } = this.#parts;
    this.#sizes.delete(sequence);
    this.#bytes -= bytes;
    totals.queuedMessages -= 1;
    totals.queuedBytes -= bytes;
    writer.withdraw(this.#messageKey(sequence));
    // An identifier may be put twice, so that its removal is always written.
    if (this.#packetIds.delete(sequence)) writer.remove(this.#packetIdKey(sequence));
  }

  clear(): void {
    for (const sequence of [...this.#sizes.keys()]) this.remove(sequence);
  }

  /** Drops what is older than the bound on age. */
  dropExpired(nowMs: number): void {
    const { writer, limits } = this.#parts;
    for (const sequence of this.#sizes.keys()) {
      const record = writer.get(this.#messageKey(sequence));
      const isYoung =
        record !== undefined &&
        isRecord(record) &&
        nowMs - storedAtOf(record) <= limits.queueAgeMaxMs;
      if (isYoung) return;
      this.#countDrop('age');
      this.remove(sequence);
    }
  }

  #add(sequence: number, bytes: number): void {
    const { totals } = this.#parts;
    this.#sizes.set(sequence, bytes);
    this.#bytes += bytes;
    this.#nextSequence = sequence + 1;
    totals.queuedMessages += 1;
    totals.queuedBytes += bytes;
  }

  #dropOldest(reason: QueueDropReason): void {
    const [oldest] = this.#sizes.keys();
    if (oldest === undefined) return;
    this.#countDrop(reason);
    this.remove(oldest);
  }

  #countDrop(reason: QueueDropReason): void {
    this.#parts.totals.dropped[reason] += 1;
  }

  /** By counting where the sequences are dense; through the Map when most of them are gone. */
  *#sequencesAfter(afterSequence: number): Generator<number> {
    if (this.#nextSequence - afterSequence > 4 * this.#sizes.size) {
      for (const sequence of this.#sizes.keys()) if (sequence > afterSequence) yield sequence;
      return;
    }
    for (let sequence = afterSequence + 1; sequence < this.#nextSequence; sequence += 1) {
      if (this.#sizes.has(sequence)) yield sequence;
    }
  }

  #messageKey(sequence: number): string {
    return this.#parts.messagePrefix + sequenceKey(sequence);
  }

  #packetIdKey(sequence: number): string {
    return this.#parts.packetIdPrefix + sequenceKey(sequence);
  }
}

/** The part of a queue's key before the sequence. */
export function queuePrefixOf(key: string): string {
  return key.slice(0, -SEQUENCE_BYTES);
}

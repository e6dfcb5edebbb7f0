import {
  decodeMessage,
  encodeMessage,
  isRecord,
  topicOf,
  topicKey,
  topicPrefixKey,
  type StoredMessage,
} from './disk-codec.ts';
import type { DiskFile } from './disk-file.ts';
import type { StoreTotals } from './disk-metrics.ts';
import type { DiskWriter } from './disk-writer.ts';
import { hasWildcard, literalPrefix, matchesFilter } from './topic-filter.ts';

const TABLE = 'R';

/** Retained messages by topic, on disk. A lookup by topic costs the same whatever their number. */
export class RetainedMessages {
  readonly #writer: DiskWriter;
  readonly #messagesMax: number;
  readonly #totals: StoreTotals;

  constructor(writer: DiskWriter, messagesMax: number, totals: StoreTotals) {
    this.#writer = writer;
    this.#messagesMax = messagesMax;
    this.#totals = totals;
  }

  /** Counts what is on disk, once. */
  restore(file: DiskFile): void {
    this.#totals.retainedMessages = file.count(TABLE);
  }

  /**
   * Keeps a message as the last of its topic, or removes that when the payload is empty. A new topic
   * beyond the bound is not kept, and counted.
   * @returns false when the disk is too far behind to take it.
   */
  put(message: Pick<StoredMessage, 'topic' | 'payload' | 'qos'>, extras = ''): boolean {
    const key = TABLE + topicKey(message.topic);
    const isThere = this.#writer.has(key);
    if (message.payload.length === 0) {
      if (!isThere) return true;
      this.#totals.retainedMessages -= 1;
      this.#writer.remove(key);
      return true;
    }
    if (this.#writer.isFull) return false;
    if (!isThere) {
      if (this.#totals.retainedMessages >= this.#messagesMax) {
        this.#totals.retainedRefused += 1;
        return true;
      }
      this.#totals.retainedMessages += 1;
    }
    this.#writer.put(key, encodeMessage({ ...message, retain: true }, Date.now(), extras));
    return true;
  }

  get(topic: string): StoredMessage | null {
    const record = this.#writer.get(TABLE + topicKey(topic));
    return record === undefined || !isRecord(record) ? null : decodeMessage(record);
  }

  /** Those that a filter selects, in no order. With a wildcard all below its literal start are read. */
  *matching(filter: string): Generator<StoredMessage> {
    for (const record of this.records(filter)) yield decodeMessage(record);
  }

  /** As {@link matching}, in the form that is on disk. */
  *records(filter: string): Generator<Buffer> {
    const prefix = literalPrefix(filter);
    if (!hasWildcard(filter)) {
      yield* this.#record(filter);
      return;
    }
    if (filter === `${prefix}#` && prefix.endsWith('/')) yield* this.#record(prefix.slice(0, -1));
    for (const { value } of this.#writer.scan(TABLE + topicPrefixKey(prefix))) {
      if (isRecord(value) && matchesFilter(topicOf(value), filter)) yield value;
    }
  }

  *#record(topic: string): Generator<Buffer> {
    const record = this.#writer.get(TABLE + topicKey(topic));
    if (record !== undefined && isRecord(record)) yield record;
  }
}

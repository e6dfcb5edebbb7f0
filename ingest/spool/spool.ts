// HOT PATH: append and drained, once per batch; the work for each record is in spool-record.ts
import { dirname } from 'node:path';
import {
  FileUnusableError,
  SpoolFailedError,
  SpoolFullError,
  type AppError,
} from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { CheckpointWriter, type Checkpoint } from './checkpoint.ts';
import { PendingSequences, type PendingSequence } from './pending-sequences.ts';
import { SegmentList, type SpoolPlaceOnDisk } from './segment-list.ts';
import { SegmentReader } from './segment-reader.ts';
import { SegmentWriter, type Append } from './segment-writer.ts';
import { SEGMENT_HEADER_BYTES } from './segment.ts';
import { REAL_FILES, type SpoolFiles } from './spool-files.ts';
import { SpoolTotals } from './spool-metrics.ts';
import {
  spoolBytes,
  type PlacedRecord,
  type SpoolPosition,
  type SpoolRecord,
} from './spool-record.ts';
import { recoverSegments } from './spool-recovery.ts';

export type { PendingSequence } from './pending-sequences.ts';
export { spoolBytes } from './spool-record.ts';
export type { PlacedRecord, SpoolPosition, SpoolRecord } from './spool-record.ts';

/** Bounds of the spool. */
export interface SpoolLimits {
  /** Bytes of all files together. 0: takes nothing more, and what is there is still drained. */
  readonly bytesMax: number;
  /** A segment that has reached it is followed by a new one; at most a quarter of `bytesMax` counts. */
  readonly segmentBytes: number;
}

/** What {@link Spool.open} needs. */
export interface SpoolOptions {
  /** Made when it is missing, for the owner alone. One process at a time: the data folder is locked. */
  readonly folder: string;
  readonly limits: SpoolLimits;
  readonly log: Logger;
  /** The file system, unless a test puts faults in its place. */
  readonly files?: SpoolFiles;
  /** How often files that are done with are removed, progress is written down and a failing disk tried. */
  readonly tidyMs?: number;
}

/** Bytes that may wait for the disk: a second of what a slow one takes. One append may be larger. */
const WAITING_BYTES_MAX = 67_108_864;
const TIDY_MS = 1000;

/**
 * The messages that were acknowledged and are not in the database yet: an append-only log on disk, in
 * segments. What {@link append} has told as stored outlives a crash and a power cut, is read in the order
 * of the appends, and stays until {@link drained} was told of it. Memory holds no messages, only where
 * segments are drained and, of each device with numbered messages in the log, four windows of numbers.
 *
 * Draining is at least once: after a crash, what was drained in the last second or so is read again, and
 * so may be records whose append was never answered. A failed append is cut off the disk again; only when
 * even that fails, and then the program crashes, can its records be read after all.
 */
export class Spool {
  readonly totals: SpoolTotals;
  /** Messages that waited when the spool was opened. */
  readonly recoveredMessages: number;
  readonly bytesMax: number;
  readonly #disk: SpoolPlaceOnDisk;
  readonly #list: SegmentList;
  readonly #sequences: PendingSequences;
  readonly #writer: SegmentWriter;
  readonly #reader: SegmentReader;
  readonly #checkpoint: CheckpointWriter;
  readonly #timer: NodeJS.Timeout;
  readonly #roomWaiters = new Set<() => void>();
  #lastRead: Promise<unknown> = Promise.resolve();
  #tidying: Promise<void> | null = null;
  #pendingMessages = 0;
  #refusedBytes = 0;
  #isFull = false;
  #isClosed = false;

  private constructor(options: SpoolOptions, recovered: Recovered) {
    const { limits, log } = options;
    const { disk, list, sequences, totals } = recovered;
    this.bytesMax = limits.bytesMax;
    this.totals = totals;
    this.#disk = disk;
    this.#list = list;
    this.#sequences = sequences;
    this.#pendingMessages = list.countPending();
    this.recoveredMessages = this.#pendingMessages;
    this.#checkpoint = new CheckpointWriter(disk, recovered.checkpoint ?? list.checkpoint);
    const segmentBytes = Math.min(limits.segmentBytes, limits.bytesMax / 4);
    const stored = (append: Append) => this.#stored(append);
    const failed = ({ records }: Append) => (totals.refused.failed += records.length);
    const changed = () => this.#changed();
    this.#writer = new SegmentWriter(list, segmentBytes, { stored, failed, changed }, log);
    const lost = (messages: number, bytes: number) => {
      this.#pendingMessages -= messages;
      totals.lostMessages += messages;
      totals.damagedBytes += bytes;
    };
    this.#reader = new SegmentReader({ list, files: disk.files, log, lost });
    this.#timer = setInterval(() => void this.#tidy(), options.tidyMs ?? TIDY_MS).unref();
  }

  /**
   * Opens the log of a folder: cuts a torn tail, counts what waits, removes what was drained. Reads all
   * that is there once, a piece at a time.
   * @throws {FileUnusableError} when the folder cannot be read or written, or was written by a newer
   * Puback.
   */
  static async open(options: SpoolOptions): Promise<Spool> {
    const { folder, limits, log, files = REAL_FILES } = options;
    const disk = { files, folder, log };
    const list = new SegmentList(disk);
    const recovered = { disk, list, sequences: new PendingSequences(), totals: new SpoolTotals() };
    if (limits.bytesMax > 0) await makeFolder(disk);
    const checkpoint = await recoverSegments(disk, recovered);
    const spool = new Spool(options, { ...recovered, checkpoint });
    await spool.#tidy();
    const { recoveredMessages: messages, pendingBytes: bytes } = spool;
    if (messages > 0) log.info({ messages, bytes }, 'spool has messages of an earlier run');
    return spool;
  }

  /** Messages on disk that {@link drained} was not called for. */
  get pendingMessages(): number {
    return this.#pendingMessages;
  }

  /** Bytes of the pending messages on disk, and of those drained out of order among them. */
  get pendingBytes(): number {
    return this.#list.pendingBytes;
  }

  /** Bytes of all files of the spool, drained parts of a segment included: what is bounded. */
  get bytes(): number {
    return this.#list.bytes;
  }

  /**
   * When the oldest pending message was received, in microseconds since 1970; null when none waits. While
   * a segment is being drained it is that of the last one that left it.
   */
  get oldestReceivedMicros(): number | null {
    return this.#list.oldestReceivedMicros;
  }

  /** True from when a message found no room until there is some again. */
  get isFull(): boolean {
    return this.#isFull;
  }

  /** True from a failed write until the disk has taken one of the same size; tried each second. */
  get isFailing(): boolean {
    return this.#writer.failure !== null;
  }

  /**
   * Whether an append of so many bytes ({@link spoolBytes} of each record) would be taken now: false
   * while failing, full, closed, or when too much waits for the disk. A no for want of room is noted:
   * {@link isFull}.
   */
  hasRoomFor(bytes: number): boolean {
    return this.#refusalOf(bytes + SEGMENT_HEADER_BYTES) === null;
  }

  /** Calls `wake` once, when there may be room again after {@link hasRoomFor} or {@link append} said no. */
  whenRoom(wake: () => void): void {
    this.#roomWaiters.add(wake);
  }

  /**
   * Writes messages behind all before them. All of one call or none, so one that is larger than the spool
   * is always refused.
   * @param onStored called once they are on disk (fdatasync), in the turn in which
   * {@link pendingMessages} rises. Acknowledge then. Never called within `append` itself.
   * @param onFailed called instead, never within `append` itself, with {@link SpoolFullError} or
   * {@link SpoolFailedError}: none of them is read by this process. Try again after {@link whenRoom}.
   */
  append(
    records: readonly SpoolRecord[],
    onStored: () => void,
    onFailed: (error: AppError) => void,
  ): void {
    if (records.length === 0) {
      setImmediate(onStored);
      return;
    }
    let bytes = SEGMENT_HEADER_BYTES;
    for (const record of records) bytes += spoolBytes(record);
    const refusal = this.#refusalOf(bytes);
    if (refusal === null) {
      this.#writer.append({ records, bytes, onStored, onFailed });
      return;
    }
    const reason = refusal instanceof SpoolFullError ? 'full' : 'failed';
    this.totals.refused[reason] += records.length;
    setImmediate(() => onFailed(refusal));
  }

  /**
   * The next records behind those read before, oldest first; empty when there is none. At least one
   * when there is any, however large; else up to about `bytesMax` of them on disk. May give fewer.
   * @throws {SpoolFailedError} when the disk cannot be read; the next call tries again from there.
   */
  read(limit: number, bytesMax: number): Promise<PlacedRecord[]> {
    const records = this.#lastRead.then(() => this.#reader.read(limit, bytesMax));
    this.#lastRead = records.catch(() => {});
    return records;
  }

  /**
   * Tells that records are stored elsewhere, in any order; those told before are left alone. Their files
   * are removed and the place is written down soon after: a crash brings back at most what was
   * drained in the last second or so, which must do no harm.
   */
  drained(positions: readonly SpoolPosition[]): void {
    let hasRetired = false;
    for (const position of positions) {
      const segment = this.#list.find(position.segment);
      if (segment === null || !segment.drain(position)) continue;
      this.#pendingMessages -= 1;
      this.totals.drainedMessages += 1;
      const { boot, hasSeqs, deviceId } = position;
      if (hasSeqs && boot !== null) this.#sequences.remove(deviceId, boot);
      if (segment.isSealed && segment.isDrained) hasRetired = true;
    }
    if (hasRetired) void this.#removeDrained();
  }

  /** Starts reading again with the oldest record that is not drained. A read under way starts again. */
  rewind(): void {
    this.#reader.rewind();
  }

  /**
   * Numbers of a device that wait here, for the duplicate check of a lane that is loaded anew. Ask
   * before asking the database: what is drained in between is then in either answer, or in both.
   */
  pendingSequences(deviceId: number): PendingSequence[] {
    return this.#sequences.of(deviceId);
  }

  /** Writes what was appended, and where draining stands. Nothing can be appended afterwards. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#timer);
    await this.#tidying;
    await this.#writer.close();
    await this.#lastRead;
    await this.#reader.close();
    await this.#tidy();
  }

  /** @param bytes with a header, for the append may begin a segment. */
  #refusalOf(bytes: number): AppError | null {
    if (this.#isClosed) return new SpoolFailedError('take more: it is closed');
    if (this.#writer.failure !== null) return this.#refuse(bytes, this.#writer.failure);
    const { waitingBytes } = this.#writer;
    if (this.#list.bytesWith(waitingBytes + bytes) > this.bytesMax) {
      if (!this.#isFull && this.bytesMax > 0) {
        const { pendingMessages, bytesMax } = this;
        this.#disk.log.warn(
          { pendingMessages, bytesMax },
          'spool is full, nothing more is taken in there',
        );
      }
      this.#isFull = true;
      return this.#refuse(bytes, new SpoolFullError(this.bytesMax));
    }
    if (waitingBytes === 0 || waitingBytes + bytes <= WAITING_BYTES_MAX) return null;
    return this.#refuse(bytes, new SpoolFailedError('take more before the disk has what waits'));
  }

  #refuse(bytes: number, refusal: AppError): AppError {
    // An append that can never fit must not keep the others waiting.
    this.#refusedBytes = Math.min(bytes, this.bytesMax / 2);
    return refusal;
  }

  #stored({ records }: Append): void {
    for (const { boot, seqs, deviceId } of records) {
      if (boot !== null && seqs.length > 0) this.#sequences.add(deviceId, boot, seqs);
    }
    this.#pendingMessages += records.length;
    this.totals.appendedMessages += records.length;
  }

  /** Tells those who wait when what was refused last would be taken. */
  #changed(): void {
    const { waitingBytes, failure } = this.#writer;
    const isFull = this.#list.bytesWith(waitingBytes + this.#refusedBytes) > this.bytesMax;
    if (this.#isFull && !isFull) {
      this.#isFull = false;
      this.#disk.log.info('spool has room again');
    }
    if (isFull || failure !== null || this.#roomWaiters.size === 0) return;
    if (waitingBytes > 0 && waitingBytes + this.#refusedBytes > WAITING_BYTES_MAX) return;
    const waiters = [...this.#roomWaiters];
    this.#roomWaiters.clear();
    for (const wake of waiters) wake();
  }

  async #removeDrained(): Promise<void> {
    this.#list.retireDrained();
    await this.#list.removeGarbage();
    this.#changed();
  }

  #tidy(): Promise<void> {
    this.#tidying ??= this.#tidyOnce().finally(() => {
      this.#tidying = null;
    });
    return this.#tidying;
  }

  async #tidyOnce(): Promise<void> {
    await this.#writer.probe(this.bytesMax - this.#list.bytesWith(SEGMENT_HEADER_BYTES));
    if (this.#pendingMessages === 0) await this.#writer.leaveDrained();
    await this.#removeDrained();
    await this.#checkpoint.write(this.#list.checkpoint, this.isFailing);
  }
}

/** What {@link Spool.open} hands to the constructor. */
interface Recovered {
  readonly disk: SpoolPlaceOnDisk;
  readonly list: SegmentList;
  readonly sequences: PendingSequences;
  readonly totals: SpoolTotals;
  readonly checkpoint: Checkpoint | null;
}

async function makeFolder({ files, folder }: SpoolPlaceOnDisk): Promise<void> {
  try {
    await files.makeFolder(folder);
    await files.syncFolder(dirname(folder));
  } catch (cause) {
    throw new FileUnusableError('the spool', folder, cause);
  }
}

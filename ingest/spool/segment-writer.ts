// HOT PATH: once per append; the work for each record is in spool-record.ts
import { SpoolFailedError, type AppError, reasonOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { OpenSegment, SegmentList } from './segment-list.ts';
import type { Segment } from './segment.ts';
import { writeAll } from './spool-files.ts';
import { encodeRecord, spoolBytesMax, type SpoolRecord } from './spool-record.ts';

/** Whole appends are written together up to about this many bytes, then synced. */
const GROUP_BYTES = 1_048_576;

/** What a failing disk is tried with at most, each second. */
const PROBE_BYTES_MAX = 16_777_216;

/** What is to be written, all of it or none. */
export interface Append {
  readonly records: readonly SpoolRecord[];
  /** On disk, with a header in case it begins a segment. */
  readonly bytes: number;
  /** Called in the turn in which it is readable. */
  readonly onStored: () => void;
  readonly onFailed: (error: AppError) => void;
}

/** What the writer tells. */
export interface WriterEvents {
  /** An append is on disk; its {@link Append.onStored} is called right after. */
  readonly stored: (append: Append) => void;
  readonly failed: (append: Append) => void;
  /** Room may have come. */
  readonly changed: () => void;
}

/**
 * Writes appends to the newest segment, in their order, and syncs as many as came together at once.
 *
 * Working: a group is written, synced, and only then readable and told as stored. Failing, after any
 * error: what was written of the group is cut off, the segment is left for good (after a failed sync
 * nobody can tell what a page holds, and the next sync would say that all is well), every append that
 * waits fails, and new ones fail at once, until {@link probe} has written as much to a new segment.
 */
export class SegmentWriter {
  readonly #list: SegmentList;
  readonly #segmentBytes: number;
  readonly #events: WriterEvents;
  readonly #log: Logger;
  readonly #queue: Append[] = [];
  readonly #buffer = Buffer.allocUnsafeSlow(GROUP_BYTES);
  #active: OpenSegment | null = null;
  #waitingBytes = 0;
  #running: Promise<void> | null = null;
  #failure: SpoolFailedError | null = null;
  #failedBytes = 0;

  constructor(list: SegmentList, segmentBytes: number, events: WriterEvents, log: Logger) {
    this.#list = list;
    this.#segmentBytes = segmentBytes;
    this.#events = events;
    this.#log = log;
  }

  /** Bytes of the appends that are not on disk yet. */
  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  /** Why nothing is written now; null while all is well. */
  get failure(): SpoolFailedError | null {
    return this.#failure;
  }

  /** Only while {@link failure} is null. */
  append(append: Append): void {
    this.#queue.push(append);
    this.#waitingBytes += append.bytes;
    this.#running ??= new Promise((resolve) => {
      setImmediate(() => void this.#run().then(resolve));
    });
  }

  /**
   * While failing: writes as much as failed last, and ends failing when the disk takes it.
   * @param bytesFree what may be written for that, beside a header.
   */
  async probe(bytesFree: number): Promise<void> {
    if (this.#failure === null || this.#running !== null || bytesFree < 0) return;
    const length = Math.min(this.#failedBytes, PROBE_BYTES_MAX, bytesFree);
    let cause: unknown = null;
    this.#running = this.#tryDisk(length).catch((thrown: unknown) => {
      cause = thrown;
    });
    await this.#running;
    this.#running = null;
    if (cause !== null) {
      this.#failure = new SpoolFailedError('write', cause);
      return;
    }
    this.#failure = null;
    this.#log.info('spool writes again');
    this.#events.changed();
  }

  /** Ends the newest segment when all of it is drained and nothing is being written, so that it can go. */
  async leaveDrained(): Promise<void> {
    const active = this.#active;
    if (active === null || this.#running !== null || !active.segment.isDrained) return;
    await this.#seal(active);
  }

  /** Resolves when all that was appended is written or failed, and the file is closed. */
  async close(): Promise<void> {
    while (this.#running !== null) await this.#running;
    if (this.#active !== null) await this.#seal(this.#active);
  }

  async #run(): Promise<void> {
    while (this.#queue.length > 0) {
      const group = this.#takeGroup();
      let active: OpenSegment;
      let end: number;
      try {
        active = this.#active ??= await this.#list.create();
        end = await this.#write(group, active);
      } catch (cause) {
        this.#fail(group, cause);
        continue;
      }
      this.#settle(group, active.segment, end);
      if (end >= this.#segmentBytes) await this.#seal(active);
    }
    this.#running = null;
  }

  #takeGroup(): Append[] {
    let count = 0;
    for (let bytes = 0; count < this.#queue.length && bytes < GROUP_BYTES; count += 1) {
      bytes += this.#queue[count]?.bytes ?? 0;
    }
    return this.#queue.splice(0, count);
  }

  /** @returns where the last record ends, on disk. */
  async #write(group: readonly Append[], active: OpenSegment): Promise<number> {
    try {
      const end = await this.#writeRecords(group, active);
      await active.file.datasync();
      return end;
    } catch (cause) {
      await this.#abandon(active);
      throw cause;
    }
  }

  /** @returns where the last record ends. */
  async #writeRecords(group: readonly Append[], active: OpenSegment): Promise<number> {
    const { segment, file } = active;
    let buffer = this.#buffer;
    let filled = 0;
    let end = segment.end;
    for (const { records } of group) {
      for (const record of records) {
        const bytesMax = spoolBytesMax(record);
        if (filled + bytesMax > buffer.length) {
          await writeAll(file, buffer, filled, end);
          end += filled;
          filled = 0;
          buffer = bytesMax > GROUP_BYTES ? Buffer.allocUnsafeSlow(bytesMax) : this.#buffer;
        }
        filled = encodeRecord(record, buffer, filled, segment.marker);
      }
    }
    await writeAll(file, buffer, filled, end);
    return end + filled;
  }

  #settle(group: readonly Append[], segment: Segment, end: number): void {
    let messages = 0;
    for (const { records, bytes } of group) {
      messages += records.length;
      this.#waitingBytes -= bytes;
    }
    const firstMicros = group[0]?.records[0]?.receivedMicros ?? 0;
    segment.grow(end, messages, firstMicros);
    this.#list.setFileBytes(segment, end);
    for (const append of group) {
      this.#events.stored(append);
      append.onStored();
    }
    this.#events.changed();
  }

  #fail(group: readonly Append[], cause: unknown): void {
    const failure = new SpoolFailedError('write', cause);
    if (this.#failure === null) {
      this.#log.warn(
        { err: reasonOf(cause) },
        'spool cannot write, nothing more is taken in there',
      );
    }
    this.#failure = failure;
    const failed = [...group, ...this.#queue.splice(0)];
    this.#failedBytes = group.reduce((sum, { bytes }) => sum + bytes, 0);
    for (const { bytes } of failed) this.#waitingBytes -= bytes;
    for (const append of failed) {
      this.#events.failed(append);
      append.onFailed(failure);
    }
  }

  /** Cuts off what was not synced, and never writes to the segment again. */
  async #abandon({ segment, file }: OpenSegment): Promise<void> {
    this.#active = null;
    try {
      await file.truncate(segment.end);
      await file.datasync();
      this.#list.setFileBytes(segment, segment.end);
    } catch {
      // Nothing behind the segment's end is read by this process. The file may be as long as was tried.
      const { size } = await file.stat().catch(() => ({ size: segment.end }));
      this.#list.setFileBytes(segment, size);
    }
    await file.close().catch(() => {});
    segment.isSealed = true;
  }

  async #seal({ segment, file }: OpenSegment): Promise<void> {
    this.#active = null;
    segment.isSealed = true;
    await file.close().catch((cause: unknown) => {
      this.#log.debug({ err: reasonOf(cause) }, 'spool file not closed');
    });
  }

  /** Makes a segment and sees whether it takes so many bytes. */
  async #tryDisk(length: number): Promise<void> {
    const active = (this.#active ??= await this.#list.create());
    const { segment, file } = active;
    try {
      this.#buffer.fill(0);
      for (let at = 0; at < length; at += GROUP_BYTES) {
        await writeAll(file, this.#buffer, Math.min(GROUP_BYTES, length - at), segment.end + at);
      }
      await file.datasync();
      await file.truncate(segment.end);
      await file.datasync();
    } catch (cause) {
      await this.#abandon(active);
      throw cause;
    }
  }
}

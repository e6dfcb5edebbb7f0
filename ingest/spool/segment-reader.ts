import { SpoolFailedError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { SegmentList } from './segment-list.ts';
import { findRecord, scanSegment } from './segment-scan.ts';
import type { Segment } from './segment.ts';
import { readUpTo, type SpoolFile, type SpoolFiles } from './spool-files.ts';
import { decodeRecord, frameAt, positionAt, type PlacedRecord } from './spool-record.ts';

/** Least bytes that are read at once, when the log has them. */
const CHUNK_BYTES_MIN = 65_536;

/** What the reader works with. */
export interface ReaderParts {
  readonly list: SegmentList;
  readonly files: SpoolFiles;
  readonly log: Logger;
  /** Called when records that were counted turn out to be damaged. */
  readonly lost: (messages: number, bytes: number) => void;
}

/** How far reading has come. */
interface Cursor {
  readonly segment: number;
  /** Where the last record ended. */
  readonly start: number;
  /** Where the next one is looked for: behind damage it is not the same. */
  readonly offset: number;
  /** Whole records before the offset. */
  readonly passed: number;
}

const AT_START: Cursor = { segment: 0, start: 0, offset: 0, passed: 0 };

/** Records from one place on, and how far that led. */
interface Found {
  readonly records: PlacedRecord[];
  readonly next: Cursor;
}

/** Reads the log from the oldest record that is not drained to the newest on disk. One read at a time. */
export class SegmentReader {
  readonly #parts: ReaderParts;
  #cursor = AT_START;
  /** Rises with each rewind, so that a read under way does not put the cursor back. */
  #rewinds = 0;
  #open: { readonly segment: number; readonly file: SpoolFile } | null = null;

  constructor(parts: ReaderParts) {
    this.#parts = parts;
  }

  /** The next read begins with the oldest record that is not drained. */
  rewind(): void {
    this.#rewinds += 1;
    this.#cursor = AT_START;
  }

  /**
   * See `Spool.read`.
   * @throws {SpoolFailedError} when the disk cannot be read.
   */
  async read(limit: number, bytesMax: number): Promise<PlacedRecord[]> {
    try {
      for (;;) {
        const segment = this.#moveOn();
        if (segment === null) break;
        const rewinds = this.#rewinds;
        const { records, next } = await this.#readFrom(segment, this.#cursor, { limit, bytesMax });
        if (rewinds !== this.#rewinds) continue;
        this.#cursor = next;
        if (records.length > 0) return records;
      }
    } catch (cause) {
      await this.close();
      throw new SpoolFailedError('read', cause);
    }
    if (this.#open !== null && this.#parts.list.find(this.#open.segment) === null) {
      await this.close();
    }
    return [];
  }

  /** Closes the file that was read last. */
  async close(): Promise<void> {
    const open = this.#open;
    this.#open = null;
    await open?.file.close().catch(() => {});
  }

  /** The segment that has the next record, with the cursor in it; null when all was read. */
  #moveOn(): Segment | null {
    const { list } = this.#parts;
    let segment = list.from(this.#cursor.segment);
    while (segment !== null) {
      if (segment.number !== this.#cursor.segment) {
        const { number, drainedEnd: offset, drainedMessages: passed } = segment;
        this.#cursor = { segment: number, start: offset, offset, passed };
      }
      if (this.#cursor.offset < segment.end) return segment;
      segment = list.from(segment.number + 1);
    }
    return null;
  }

  async #readFrom(
    segment: Segment,
    cursor: Cursor,
    { limit, bytesMax }: { limit: number; bytesMax: number },
  ): Promise<Found> {
    const file = await this.#fileOf(segment);
    const { end, marker } = segment;
    const { offset } = cursor;
    let { start, passed } = cursor;
    const wanted = Math.max(CHUNK_BYTES_MIN, Math.ceil(limit * bytesOfRecord(segment)));
    let chunk = await readUpTo(file, offset, Math.min(wanted, bytesMax, end - offset));
    const records: PlacedRecord[] = [];
    let at = offset;
    while (records.length < limit && at < end) {
      const frame = frameAt(chunk, at - offset, end - at, marker);
      if (typeof frame === 'number') {
        const place = { segment: segment.number, start, end: at + frame };
        if (!segment.hasDrained(start)) {
          const record = decodeRecord(chunk, at - offset, at - offset + frame);
          records.push({ record, position: positionAt(chunk, at - offset, place) });
        }
        at += frame;
        start = at;
        passed += 1;
      } else if (at > offset) break;
      else {
        const needed = frame === 'damaged' ? 0 : frame.bytesNeeded;
        if (needed > chunk.length) chunk = await readUpTo(file, offset, needed);
        if (chunk.length < needed || frame === 'damaged') return this.#skip(segment, cursor, file);
      }
    }
    return { records, next: { segment: segment.number, start, offset: at, passed } };
  }

  async #skip(segment: Segment, cursor: Cursor, file: SpoolFile): Promise<Found> {
    const known = segment.damage.get(cursor.offset);
    const offset = known ?? (await this.#lose(segment, cursor, file));
    return { records: [], next: { ...cursor, offset } };
  }

  /** Damage that was not there when the records were counted. @returns where the next record starts. */
  async #lose(segment: Segment, { offset, passed }: Cursor, file: SpoolFile): Promise<number> {
    const { end, messages } = segment;
    const found = await findRecord(file, segment, { from: offset + 1, to: end });
    const next = found ?? end;
    let left = 0;
    await scanSegment(file, segment, { from: next, to: end }, () => {
      left += 1;
    });
    const lostMessages = Math.max(0, messages - passed - left);
    segment.damage.set(offset, next);
    segment.messages -= lostMessages;
    const { log, lost } = this.#parts;
    const where = { path: segment.path, offset, bytes: next - offset, messages: lostMessages };
    log.error(where, 'spool is damaged, messages are lost');
    lost(lostMessages, next - offset);
    return next;
  }

  async #fileOf(segment: Segment): Promise<SpoolFile> {
    if (this.#open?.segment === segment.number) return this.#open.file;
    await this.close();
    const file = await this.#parts.files.open(segment.path, 'r');
    this.#open = { segment: segment.number, file };
    return file;
  }
}

/** On average, for a guess at how much to read. */
function bytesOfRecord({ end, messages }: Segment): number {
  return messages === 0 ? 0 : (end / messages) * 1.1;
}

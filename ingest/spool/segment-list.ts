import { SpoolFailedError, reasonOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { Checkpoint } from './checkpoint.ts';
import { drawMarker, encodeSegmentHeader, SEGMENT_HEADER_BYTES, Segment } from './segment.ts';
import { writeAll, type SpoolFile, type SpoolFiles } from './spool-files.ts';

/** Bytes set aside for the file that says how far the log is drained, twice while it is replaced. */
const CHECKPOINT_BYTES = 64;

/** Where the files are. */
export interface SpoolPlaceOnDisk {
  readonly files: SpoolFiles;
  readonly folder: string;
  readonly log: Logger;
}

/** A segment that is written to. */
export interface OpenSegment {
  readonly segment: Segment;
  readonly file: SpoolFile;
}

/** The segments on disk, oldest first, and what they take. */
export class SegmentList {
  readonly #disk: SpoolPlaceOnDisk;
  readonly #segments = new Map<number, Segment>();
  /** Files that are of no more use and could not be removed yet: path and bytes. */
  readonly #garbage = new Map<string, number>();
  #nextNumber = 1;
  #fileBytes = 0;
  #hasLoggedRemoval = false;

  constructor(disk: SpoolPlaceOnDisk) {
    this.#disk = disk;
  }

  /** Bytes of all files. */
  get bytes(): number {
    return this.#fileBytes === 0 ? 0 : this.bytesWith(0);
  }

  /** Bytes of all files when so many are added. */
  bytesWith(more: number): number {
    return this.#fileBytes + CHECKPOINT_BYTES + more;
  }

  /** Messages that are not drained. */
  countPending(): number {
    let messages = 0;
    for (const { pendingMessages } of this.#segments.values()) messages += pendingMessages;
    return messages;
  }

  /** Bytes that are not drained. */
  get pendingBytes(): number {
    let bytes = 0;
    for (const { end, drainedEnd } of this.#segments.values()) bytes += end - drainedEnd;
    return bytes;
  }

  /** When the oldest pending message was received. */
  get oldestReceivedMicros(): number | null {
    for (const segment of this.#segments.values()) {
      if (segment.pendingMessages > 0) return segment.oldestMicros;
    }
    return null;
  }

  /** How far all is drained. */
  get checkpoint(): Checkpoint {
    for (const { isDrained, isSealed, number, marker, drainedEnd } of this.#segments.values()) {
      if (!isDrained || !isSealed) return { segment: number, marker, end: drainedEnd };
    }
    return { segment: this.#nextNumber, marker: 0, end: 0 };
  }

  /** Numbers never come again, or a checkpoint could be taken for that of another segment. */
  reserveNumber(number: number): void {
    if (number >= this.#nextNumber) this.#nextNumber = number + 1;
  }

  /** Adds a segment that is newer than all others. */
  add(segment: Segment): void {
    this.reserveNumber(segment.number);
    this.#segments.set(segment.number, segment);
    this.#fileBytes += segment.fileBytes;
  }

  /** Counts a file that takes room and is not read. */
  countForeign(bytes: number): void {
    this.#fileBytes += bytes;
  }

  /** Notes that a segment's file has become larger or smaller. */
  setFileBytes(segment: Segment, bytes: number): void {
    this.#fileBytes += bytes - segment.fileBytes;
    segment.fileBytes = bytes;
  }

  find(number: number): Segment | null {
    return this.#segments.get(number) ?? null;
  }

  /** The oldest segment whose number is not below. */
  from(number: number): Segment | null {
    for (const segment of this.#segments.values()) if (segment.number >= number) return segment;
    return null;
  }

  /**
   * Makes the next segment. Its name and header outlive a power cut when this resolves.
   * @throws what the file system says; then nothing of it is left but a file to be removed.
   */
  async create(): Promise<OpenSegment> {
    const { files, folder } = this.#disk;
    // The next number stays that of this segment until it is listed: a checkpoint says that all before
    // the next number is drained.
    const segment = new Segment(folder, this.#nextNumber, drawMarker());
    let file: SpoolFile | null = null;
    try {
      file = await files.open(segment.path, 'wx');
      this.#fileBytes += SEGMENT_HEADER_BYTES;
      const header = encodeSegmentHeader(segment.number, segment.marker);
      await writeAll(file, header, header.length, 0);
      await file.datasync();
      await files.syncFolder(folder);
    } catch (cause) {
      this.reserveNumber(segment.number);
      await this.#giveUp(segment, file);
      throw cause;
    }
    this.reserveNumber(segment.number);
    this.#segments.set(segment.number, segment);
    return { segment, file };
  }

  /** Takes out the segments that are drained and no longer written to; {@link removeGarbage} follows. */
  retireDrained(): void {
    for (const segment of this.#segments.values()) {
      if (!segment.isSealed || !segment.isDrained) continue;
      this.#segments.delete(segment.number);
      this.#garbage.set(segment.path, segment.fileBytes);
    }
  }

  /** Removes files that are of no more use. What cannot be removed is tried again at the next call. */
  async removeGarbage(): Promise<void> {
    for (const [path, bytes] of this.#garbage) {
      try {
        await this.#disk.files.unlink(path);
      } catch (cause) {
        if ((cause as { code?: unknown }).code !== 'ENOENT') {
          this.#tellRemovalFailed(path, cause);
          continue;
        }
      }
      if (this.#garbage.delete(path)) this.#fileBytes -= bytes;
      this.#hasLoggedRemoval = false;
    }
  }

  async #giveUp({ path }: Segment, file: SpoolFile | null): Promise<void> {
    if (file === null) return;
    await file.close().catch(() => {});
    this.#garbage.set(path, SEGMENT_HEADER_BYTES);
    await this.removeGarbage();
  }

  #tellRemovalFailed(path: string, cause: unknown): void {
    if (this.#hasLoggedRemoval) return;
    this.#hasLoggedRemoval = true;
    const { message } = new SpoolFailedError('remove a file', cause);
    this.#disk.log.warn({ path, err: reasonOf(message) }, 'spool file not removed, tried again');
  }
}

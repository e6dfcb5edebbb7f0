import { FileUnusableError } from '../../errors.ts';
import { CHECKPOINT_FILE, readCheckpoint, type Checkpoint } from './checkpoint.ts';
import type { PendingSequences } from './pending-sequences.ts';
import type { SegmentList, SpoolPlaceOnDisk } from './segment-list.ts';
import { scanSegment } from './segment-scan.ts';
import {
  decodeSegmentHeader,
  Segment,
  SEGMENT_HEADER_BYTES,
  segmentNumber,
  segmentPath,
  type SegmentHeader,
} from './segment.ts';
import { readUpTo, type SpoolFile } from './spool-files.ts';
import { positionAt, seqsAt } from './spool-record.ts';
import type { SpoolTotals } from './spool-metrics.ts';

/** What recovery fills. */
export interface RecoveryTarget {
  readonly list: SegmentList;
  readonly sequences: PendingSequences;
  readonly totals: SpoolTotals;
}

/**
 * Reads what an earlier run left: cuts torn tails, sets aside segments whose header is damaged (ending
 * `.damaged`), removes what was drained, and counts the rest.
 * @returns the checkpoint it found.
 * @throws {FileUnusableError} when the folder cannot be read or written, or was written by a newer Puback.
 */
export async function recoverSegments(
  disk: SpoolPlaceOnDisk,
  target: RecoveryTarget,
): Promise<Checkpoint | null> {
  try {
    return await recover(disk, target);
  } catch (cause) {
    if (cause instanceof FileUnusableError) throw cause;
    throw new FileUnusableError('the spool', disk.folder, cause);
  }
}

async function recover(disk: SpoolPlaceOnDisk, target: RecoveryTarget): Promise<Checkpoint | null> {
  const names = await listFolder(disk);
  const checkpoint = names.includes(CHECKPOINT_FILE)
    ? await readCheckpoint(disk.files, disk.folder)
    : null;
  if (checkpoint !== null) target.list.reserveNumber(checkpoint.segment);
  for (const name of names) {
    const found = segmentNumber(name);
    if (found === null) continue;
    target.list.reserveNumber(found.number);
    const path = segmentPath(disk.folder, found.number, found.isDamaged ? 'damaged' : 'log');
    if (found.isDamaged) target.list.countForeign(await sizeOf(disk, path));
    else if (checkpoint !== null && found.number < checkpoint.segment)
      await disk.files.unlink(path);
    else await new SegmentRecovery(disk, target, checkpoint).recover(found.number);
  }
  return checkpoint;
}

/** Empty when there is no folder: with the spool turned off none is made. */
async function listFolder({ files, folder }: SpoolPlaceOnDisk): Promise<string[]> {
  try {
    return (await files.list(folder)).toSorted();
  } catch (cause) {
    if ((cause as { code?: unknown }).code === 'ENOENT') return [];
    throw cause;
  }
}

async function sizeOf({ files }: SpoolPlaceOnDisk, path: string): Promise<number> {
  const file = await files.open(path, 'r');
  try {
    return (await file.stat()).size;
  } finally {
    await file.close();
  }
}

/** Takes up one segment. */
class SegmentRecovery {
  readonly #disk: SpoolPlaceOnDisk;
  readonly #target: RecoveryTarget;
  readonly #checkpoint: Checkpoint | null;

  constructor(disk: SpoolPlaceOnDisk, target: RecoveryTarget, checkpoint: Checkpoint | null) {
    this.#disk = disk;
    this.#target = target;
    this.#checkpoint = checkpoint;
  }

  async recover(number: number): Promise<void> {
    const path = segmentPath(this.#disk.folder, number);
    const file = await this.#disk.files.open(path, 'r+');
    let header: SegmentHeader;
    let size: number;
    try {
      ({ size } = await file.stat());
      header = decodeSegmentHeader(await readUpTo(file, 0, SEGMENT_HEADER_BYTES));
      if (header.kind === 'whole') await this.#scan(file, size, { number, marker: header.marker });
    } finally {
      await file.close();
    }
    if (header.kind !== 'whole') await this.#putAway(header, number, size);
  }

  async #scan(
    file: SpoolFile,
    size: number,
    { number, marker }: { number: number; marker: number },
  ): Promise<void> {
    const { list, sequences } = this.#target;
    const segment = new Segment(this.#disk.folder, number, marker);
    const isMeant = this.#checkpoint?.segment === number && this.#checkpoint.marker === marker;
    const drainedTo = isMeant ? (this.#checkpoint?.end ?? 0) : 0;
    const span = { from: SEGMENT_HEADER_BYTES, to: size };
    const end = await scanSegment(file, segment, span, (chunk, at, place) => {
      const position = positionAt(chunk, at, place);
      segment.grow(place.end, 1, position.receivedMicros);
      if (place.start < drainedTo) segment.drain(position);
      else if (position.hasSeqs && position.boot !== null) {
        sequences.add(position.deviceId, position.boot, seqsAt(chunk, at));
      }
    });
    segment.isSealed = true;
    this.#tellDamage(segment);
    if (end < size) await this.#cut(file, segment, size);
    segment.fileBytes = end;
    list.add(segment);
  }

  /** Bytes behind the last whole record were never acknowledged: a group that a crash broke off. */
  async #cut(file: SpoolFile, segment: Segment, size: number): Promise<void> {
    const bytes = size - segment.end;
    this.#target.totals.tornBytes += bytes;
    this.#disk.log.warn(
      { path: segment.path, bytes },
      'spool: cut off what a crash left half written',
    );
    await file.truncate(segment.end);
    await file.datasync();
  }

  #tellDamage({ path, damage }: Segment): void {
    for (const [offset, to] of damage) {
      this.#target.totals.damagedBytes += to - offset;
      this.#disk.log.error(
        { path, offset, bytes: to - offset },
        'spool is damaged, messages are lost',
      );
    }
  }

  async #putAway(
    header: Exclude<SegmentHeader, { kind: 'whole' }>,
    number: number,
    size: number,
  ): Promise<void> {
    const { files, folder, log } = this.#disk;
    const path = segmentPath(folder, number);
    if (header.kind === 'foreign') {
      throw new FileUnusableError(
        'the spool segment',
        path,
        `it has format ${header.format}: start the version that wrote it, and let it drain`,
      );
    }
    if (header.kind === 'torn') {
      this.#target.totals.tornBytes += size;
      log.warn({ path, bytes: size }, 'spool: removed what a crash left half written');
      return files.unlink(path);
    }
    this.#target.totals.damagedBytes += size;
    this.#target.list.countForeign(size);
    log.error({ path, bytes: size }, 'spool segment has a damaged head and is set aside');
    return files.rename(path, segmentPath(folder, number, 'damaged'));
  }
}

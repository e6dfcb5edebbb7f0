import { crc32 } from 'node:zlib';
import { join } from 'node:path';
import { reasonOf } from '../../errors.ts';
import type { SpoolPlaceOnDisk } from './segment-list.ts';
import { SEGMENT_HEADER_BYTES, SPOOL_FORMAT } from './segment.ts';
import { writeAll, type SpoolFiles } from './spool-files.ts';

/** How far the log is drained: all segments before `segment`, and that one up to `end`. */
export interface Checkpoint {
  readonly segment: number;
  /** Marker of that segment; another segment of the same number is not meant. 0: there is none yet. */
  readonly marker: number;
  readonly end: number;
}

const BYTES = 32;
/** File that it is kept in, in the spool's folder. */
export const CHECKPOINT_FILE = 'drained';

/**
 * Reads how far the log was drained. Null when that is not known: then all that is there is drained
 * again, which does no harm.
 */
export async function readCheckpoint(
  files: SpoolFiles,
  folder: string,
): Promise<Checkpoint | null> {
  const bytes = await files.readSmall(join(folder, CHECKPOINT_FILE));
  if (bytes.length !== BYTES || bytes.readUInt32LE(0) !== SPOOL_FORMAT) return null;
  if (crc32(bytes.subarray(0, 28)) !== bytes.readUInt32LE(28)) return null;
  return {
    marker: bytes.readUInt32LE(4),
    segment: bytes.readDoubleLE(8),
    end: bytes.readDoubleLE(16),
  };
}

/** Writes down how far the log is drained, when that has changed. */
export class CheckpointWriter {
  readonly #disk: SpoolPlaceOnDisk;
  #written: Checkpoint;
  #hasTold = false;

  /** @param written what is on disk, or says the same as nothing. */
  constructor(disk: SpoolPlaceOnDisk, written: Checkpoint) {
    this.#disk = disk;
    this.#written = written;
  }

  /**
   * Not being able to is no loss: more is drained again after a restart.
   * @param isQuiet whether it is known already that the disk fails.
   */
  async write(checkpoint: Checkpoint, isQuiet: boolean): Promise<void> {
    const { segment, end } = this.#written;
    if (checkpoint.segment === segment && drainedBytes(checkpoint.end) === drainedBytes(end))
      return;
    const { files, folder, log } = this.#disk;
    try {
      await writeCheckpoint(files, folder, checkpoint);
      this.#written = checkpoint;
      this.#hasTold = false;
    } catch (cause) {
      if (!this.#hasTold && !isQuiet)
        log.warn({ err: reasonOf(cause) }, 'spool progress not written');
      this.#hasTold = true;
    }
  }
}

function drainedBytes(end: number): number {
  return Math.max(0, end - SEGMENT_HEADER_BYTES);
}

/** A crash leaves the one before, or this one. */
async function writeCheckpoint(
  files: SpoolFiles,
  folder: string,
  { segment, marker, end }: Checkpoint,
): Promise<void> {
  const bytes = Buffer.alloc(BYTES);
  bytes.writeUInt32LE(SPOOL_FORMAT, 0);
  bytes.writeUInt32LE(marker, 4);
  bytes.writeDoubleLE(segment, 8);
  bytes.writeDoubleLE(end, 16);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 28)), 28);
  const path = join(folder, CHECKPOINT_FILE);
  const file = await files.open(`${path}.new`, 'w');
  try {
    await writeAll(file, bytes, BYTES, 0);
    await file.datasync();
  } finally {
    await file.close();
  }
  await files.rename(`${path}.new`, path);
}

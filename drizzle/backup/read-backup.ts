import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { BackupUnusableError, FileUnusableError } from '../../errors.ts';
import type { BackupProgress, BackupReport } from './backup.ts';
import { decodeFrames, type BackupHeader, type Frame } from './backup-format.ts';

/** What is to be read, and how to tell of it. */
export interface ReadOptions {
  readonly file: string;
  /** Aborted: reading ends with an `AbortError`. */
  readonly signal: AbortSignal;
  readonly onProgress: (progress: BackupProgress) => void;
}

/** A backup while it is read: the header is taken already, the frames are counted as they pass. */
export interface OpenBackup {
  readonly header: BackupHeader;
  readonly frames: AsyncIterable<Frame>;
  /** Rows by table and bytes so far. */
  readonly sums: () => Omit<BackupReport, 'fileBytes'>;
}

/**
 * Opens a backup and has it read. What `read` did must be undone when this rejects: a fault may show
 * with the last byte.
 * @throws {BackupUnusableError} @throws {FileUnusableError} What `read` throws.
 */
export async function readBackup<T>(
  { file, signal, onProgress }: ReadOptions,
  read: (backup: OpenBackup) => Promise<T>,
): Promise<T & { readonly fileBytes: number }> {
  const { size: fileBytes } = await stat(file).catch((error: unknown) => {
    throw new FileUnusableError('the backup', file, error);
  });
  const source = createReadStream(file, { highWaterMark: 1_048_576 });
  const tally = new ReadTally((table, rows, bytes) => {
    onProgress({ table, rows, bytes, fraction: Math.min(1, source.bytesRead / fileBytes) });
  });
  try {
    const result = await pipeline(
      source,
      createGunzip({ chunkSize: 262_144 }),
      async (bytes: AsyncIterable<Buffer>) => {
        const frames = decodeFrames(bytes);
        const header = await readHeader(frames);
        return read({ header, frames: tally.count(frames), sums: () => tally.sums });
      },
      { signal },
    );
    return { ...result, fileBytes };
  } catch (error) {
    throw toFileError(file, error);
  }
}

/** The error for counts that do not agree. */
export function countsDiffer(table: string, expected: number, found: number): BackupUnusableError {
  return new BackupUnusableError(`${table} should have ${expected} rows and has ${found}`);
}

/** Counts what was read, and holds it against what the backup says of itself. */
class ReadTally {
  readonly #rows: Record<string, number> = {};
  readonly #tell: (table: string, rows: number, bytes: number) => void;
  #table = '';
  #rowsTotal = 0;
  #bytes = 0;

  constructor(tell: (table: string, rows: number, bytes: number) => void) {
    this.#tell = tell;
  }

  get sums(): { rows: Readonly<Record<string, number>>; bytes: number } {
    return { rows: this.#rows, bytes: this.#bytes };
  }

  /** Passes frames on. @throws {BackupUnusableError} the sums at the end are others. */
  async *count(frames: AsyncIterable<Frame>): AsyncGenerator<Frame> {
    for await (const frame of frames) {
      this.#take(frame);
      yield frame;
    }
  }

  #take(frame: Frame): void {
    switch (frame.kind) {
      case 'table':
        this.#table = frame.content.table;
        this.#rows[this.#table] ??= 0;
        break;
      case 'rows':
        this.#bytes += frame.content.length;
        break;
      case 'tableEnd':
        this.#rows[this.#table] = (this.#rows[this.#table] ?? 0) + frame.content.rows;
        this.#rowsTotal += frame.content.rows;
        break;
      case 'end':
        this.#compare(frame.content.rows);
        break;
      case 'header':
      case 'sequences':
        break;
    }
    this.#tell(this.#table, this.#rowsTotal, this.#bytes);
  }

  #compare(expected: Readonly<Record<string, number>>): void {
    for (const [table, rows] of Object.entries(expected)) {
      this.#rows[table] ??= 0;
      if (this.#rows[table] !== rows) throw countsDiffer(table, rows, this.#rows[table]);
    }
  }
}

function toFileError(file: string, error: unknown): unknown {
  const { code = '', syscall } = error as NodeJS.ErrnoException;
  if (code === 'Z_BUF_ERROR') return new BackupUnusableError('it is cut off', error);
  if (code.startsWith('Z_')) {
    return new BackupUnusableError('it is no backup of Puback, or damaged', error);
  }
  return syscall === 'read' || syscall === 'open'
    ? new FileUnusableError('the backup', file, error)
    : error;
}

async function readHeader(frames: AsyncGenerator<Frame>): Promise<BackupHeader> {
  const { value } = await frames.next();
  if (value?.kind !== 'header') throw new BackupUnusableError('it has no header');
  return value.content;
}

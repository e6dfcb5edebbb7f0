import { constants } from 'node:fs';
import { rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { dirname } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import pg from 'pg';
import { DatabaseUnsupportedError, FileUnusableError } from '../../errors.ts';
import { openPrivateFile, syncFolder } from '../data-folder-files.ts';
import { encodeFrames, type BackupPartition, type Frame } from './backup-format.ts';
import { CopyOut } from './copy-streams.ts';
import { readMigrations } from './schema-version.ts';
import { openSnapshot } from './snapshot.ts';
import { hasHypertables, quoteTable, readSequences, type CatalogTable } from './table-catalog.ts';

/** How far a backup or a restore is. */
export interface BackupProgress {
  /** The table under way. */
  readonly table: string;
  readonly rows: number;
  /** Of the rows in PostgreSQL's binary format, before compression. */
  readonly bytes: number;
  /** Done so far, from 0 to 1; an estimate. */
  readonly fraction: number;
}

/** What was backed up or restored. */
export interface BackupReport {
  /** Rows by table. */
  readonly rows: Readonly<Record<string, number>>;
  readonly bytes: number;
  readonly fileBytes: number;
}

/** What is to be backed up, and where to. */
export interface BackupOptions {
  readonly url: string;
  readonly file: string;
  /** Aborted: the backup ends with an `AbortError` and leaves nothing. */
  readonly signal: AbortSignal;
  readonly onProgress: (progress: BackupProgress) => void;
}

/** Readings at level 1: a tenth to a fifth of their size, at twice the speed of level 6. */
const GZIP = { level: 1, chunkSize: 262_144 };

/**
 * Writes all tables of the database, as they are at one moment, to a file for its owner alone. The
 * program goes on meanwhile. The file has another name until it is complete and on disk; one that was
 * there before is replaced then. Needs some megabytes of memory, whatever the size.
 * @throws {FileUnusableError} the file cannot be written. @throws {DatabaseUnsupportedError} the database
 * has no schema of Puback, or TimescaleDB, whose aggregates would be left out. What the database says
 * otherwise.
 */
export async function writeBackup(options: BackupOptions): Promise<BackupReport> {
  const { file, signal } = options;
  await assertReplaceable(file);
  const unfinished = `${file}.unfinished-${randomBytes(4).toString('hex')}`;
  const snapshot = await openSnapshot(options.url);
  try {
    assertPlain(snapshot.tables);
    const output = await usingFile(file, openPrivateFile(unfinished, constants.O_EXCL));
    try {
      const tally = new Tally(snapshot.tables, options.onProgress);
      const frames = framesOf(snapshot.client, snapshot.tables, tally);
      const written = pipeline(
        encodeFrames(frames),
        createGzip(GZIP),
        (chunks: AsyncIterable<Buffer>) => writeAll(output, chunks),
        { signal },
      );
      const fileBytes = await usingFile(file, written);
      await usingFile(file, output.sync());
      await usingFile(file, rename(unfinished, file));
      await syncFolder(dirname(file));
      return { ...tally.sums, fileBytes };
    } finally {
      await output.close();
      await rm(unfinished, { force: true });
    }
  } finally {
    await snapshot.client.end();
  }
}

/** Not a stream over the file: closing that would come before the file is synced. */
async function writeAll(file: FileHandle, chunks: AsyncIterable<Buffer>): Promise<number> {
  let bytes = 0;
  for await (const chunk of chunks) {
    await file.writeFile(chunk);
    bytes += chunk.length;
  }
  return bytes;
}

async function* framesOf(
  client: pg.Client,
  tables: readonly CatalogTable[],
  tally: Tally,
): AsyncGenerator<Frame> {
  const migrations = await readMigrations(client);
  if (migrations.length === 0) {
    throw new DatabaseUnsupportedError(
      'the database has no tables of Puback: start Puback on it first',
    );
  }
  const version = await client.query<{ server_version: string }>('SHOW server_version');
  const createdAt = new Date().toISOString();
  const serverVersion = version.rows[0]?.server_version ?? '';
  yield { kind: 'header', content: { createdAt, serverVersion, hypertables: false, migrations } };
  for (const table of tables) {
    if (!table.isPartitioned) yield* tableFrames(client, table, null, tally);
    for (const partition of table.partitions) {
      yield* tableFrames(client, table, partition, tally);
    }
    tally.tableIsDone(table.table);
  }
  yield { kind: 'sequences', content: await readSequences(client) };
  yield { kind: 'end', content: { rows: tally.sums.rows } };
}

/** Not `COPY table`, which takes no rows out of a hypertable. */
async function* tableFrames(
  client: pg.Client,
  { table, columns, bytes }: CatalogTable,
  partition: (BackupPartition & { readonly bytes: number }) | null,
  tally: Tally,
): AsyncGenerator<Frame> {
  const { name, bound, options } = partition ?? { name: table, bound: '', options: [] };
  const described = partition === null ? null : { name, bound, options };
  yield { kind: 'table', content: { table, columns, partition: described } };
  const list = columns.map((column) => pg.escapeIdentifier(column.name)).join(', ');
  const copy = new CopyOut(
    `COPY (SELECT ${list} FROM ${quoteTable(name)}) TO STDOUT (FORMAT binary)`,
  );
  client.query(copy);
  const sizeBytes = partition?.bytes ?? bytes;
  for await (const block of copy as AsyncIterable<Buffer>) {
    tally.copied(table, block.length, sizeBytes);
    yield { kind: 'rows', content: block };
  }
  tally.partIsDone(table, copy.rows, sizeBytes);
  yield { kind: 'tableEnd', content: { rows: copy.rows } };
}

/** Counts what has been copied, and tells how far that is. */
class Tally {
  readonly #rows: Record<string, number> = {};
  readonly #onProgress: (progress: BackupProgress) => void;
  readonly #totalBytes: number;
  #doneBytes = 0;
  #partBytes = 0;
  #rowsTotal = 0;
  #bytes = 0;

  constructor(tables: readonly CatalogTable[], onProgress: (progress: BackupProgress) => void) {
    this.#onProgress = onProgress;
    const parts = tables.flatMap((table): readonly { readonly bytes: number }[] =>
      table.isPartitioned ? table.partitions : [table],
    );
    this.#totalBytes = parts.reduce((sum, { bytes }) => sum + bytes, 1);
  }

  get sums(): { rows: Readonly<Record<string, number>>; bytes: number } {
    return { rows: { ...this.#rows }, bytes: this.#bytes };
  }

  /** A row takes about as much on disk as in the format of COPY; the end of a part puts it right. */
  copied(table: string, blockBytes: number, sizeBytes: number): void {
    this.#bytes += blockBytes;
    this.#partBytes = Math.min(sizeBytes, this.#partBytes + blockBytes);
    this.#tell(table);
  }

  partIsDone(table: string, rows: number, sizeBytes: number): void {
    this.#doneBytes += sizeBytes;
    this.#partBytes = 0;
    this.#rowsTotal += rows;
    this.#rows[table] = (this.#rows[table] ?? 0) + rows;
    this.#tell(table);
  }

  /** A partitioned table may have no partition. */
  tableIsDone(table: string): void {
    this.#rows[table] ??= 0;
  }

  #tell(table: string): void {
    const fraction = Math.min(1, (this.#doneBytes + this.#partBytes) / this.#totalBytes);
    this.#onProgress({ table, rows: this.#rowsTotal, bytes: this.#bytes, fraction });
  }
}

/** What continuous aggregates keep of readings that are gone by now is in no table of ours. */
function assertPlain(tables: readonly CatalogTable[]): void {
  if (!hasHypertables(tables)) return;
  throw new DatabaseUnsupportedError(
    'the database has TimescaleDB: back it up with pg_dump, as docs/operations.md says',
  );
}

async function assertReplaceable(file: string): Promise<void> {
  const found = await stat(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw new FileUnusableError('the backup', file, error);
  });
  if (found !== null && !found.isFile()) {
    throw new FileUnusableError('the backup', file, new Error('it is not a file'));
  }
}

/** Faults of the file system, told with the name of the file. Others pass. */
async function usingFile<T>(file: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    const { syscall } = error as NodeJS.ErrnoException;
    if (syscall === undefined || !/^(open|write|fsync|fdatasync|rename|close)$/.test(syscall)) {
      throw error;
    }
    throw new FileUnusableError('the backup', file, error);
  }
}

import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import pg from 'pg';
import { BackupUnusableError, FileUnusableError, RestoreRefusedError } from '../../errors.ts';
import { prepareExtension } from '../capabilities.ts';
import { migrateDatabase } from '../migrate.ts';
import type { BackupProgress, BackupReport } from './backup.ts';
import {
  decodeFrames,
  type BackupColumn,
  type BackupHeader,
  type BackupSequence,
  type BackupTable,
  type Frame,
} from './backup-format.ts';
import { startCopyIn } from './copy-streams.ts';
import { assertKnownSchema, migrateTo, readMigrations } from './schema-version.ts';
import { openPlainConnection } from './snapshot.ts';
import { quoteTable, readTables, type CatalogTable } from './table-catalog.ts';

/** What is to be restored, and how to tell of it. */
export interface RestoreOptions {
  readonly file: string;
  /** Aborted: the restore ends with an `AbortError`. */
  readonly signal: AbortSignal;
  readonly onProgress: (progress: BackupProgress) => void;
}

/** What was restored, and what was left to be made anew. */
export interface RestoreReport extends BackupReport {
  readonly header: BackupHeader;
  /** Tables of the backup that this database makes by itself, as views. */
  readonly skipped: readonly string[];
}

const CONNECT_TIMEOUT_MS = 30_000;

/**
 * Reads a whole backup and compares its checksum and counts. Writes nothing.
 * @throws {BackupUnusableError} @throws {FileUnusableError}
 */
export async function checkBackup(options: RestoreOptions): Promise<RestoreReport> {
  return readBackup(options, async (frames, tally) => {
    const header = await readHeader(frames);
    for await (const frame of frames) tally.take(frame);
    return { ...tally.sums, header, skipped: [] };
  });
}

/**
 * Fills a database that has no readings and no organizations: makes the schema of the backup, copies
 * all rows in one transaction, compares the counts, commits, and brings the schema up to this program's.
 * After an error the database has tables and no rows.
 * @throws {BackupUnusableError} cut off, damaged, or of a newer Puback. @throws {FileUnusableError} not
 * readable. @throws {RestoreRefusedError} the database is not empty, or lacks what the backup needs. What
 * the database says otherwise.
 */
export async function restoreBackup(url: string, options: RestoreOptions): Promise<RestoreReport> {
  return readBackup(options, async (frames, tally) => {
    const header = await readHeader(frames);
    assertKnownSchema(header.migrations);
    await prepareExtension(url, CONNECT_TIMEOUT_MS);
    const client = await openPlainConnection(url, 'puback restore');
    try {
      await assertEmpty(client, header);
      await migrateTo(client, header.migrations.length);
      await client.query('BEGIN');
      const target = new RestoreTarget(client, await readTables(client));
      for await (const frame of frames) {
        tally.take(frame);
        await target.take(frame);
      }
      await target.assertCounts(tally.sums.rows);
      await client.query('COMMIT');
      await client.query('ANALYZE');
      await migrateDatabase(client);
      return { ...tally.sums, header, skipped: target.skipped };
    } finally {
      await client.end();
    }
  });
}

/** Where the frames of a backup go. */
class RestoreTarget {
  readonly #client: pg.Client;
  readonly #tables: ReadonlyMap<string, CatalogTable>;
  readonly #truncated = new Set<string>();
  readonly skipped: string[] = [];
  #copy: Awaited<ReturnType<typeof startCopyIn>> | null = null;

  constructor(client: pg.Client, tables: readonly CatalogTable[]) {
    this.#client = client;
    this.#tables = new Map(tables.map((table) => [table.table, table]));
  }

  async take(frame: Frame): Promise<void> {
    switch (frame.kind) {
      case 'table':
        await this.#begin(frame.content);
        return;
      case 'rows':
        await this.#copy?.write(frame.content);
        return;
      case 'tableEnd': {
        const rows = (await this.#copy?.end()) ?? frame.content.rows;
        this.#copy = null;
        if (rows !== frame.content.rows) throw countsDiffer('a table', frame.content.rows, rows);
        return;
      }
      case 'sequences':
        await setSequences(this.#client, frame.content);
        return;
      case 'header':
      case 'end':
        return;
    }
  }

  /** Reads every table: a trigger, or a row that came from elsewhere, shows here. */
  async assertCounts(expected: Readonly<Record<string, number>>): Promise<void> {
    for (const [table, rows] of Object.entries(expected)) {
      if (this.skipped.includes(table)) continue;
      const { rows: found } = await this.#client.query<{ count: string }>(
        `SELECT count(*) AS count FROM ${quoteTable(table)}`,
      );
      const count = Number(found[0]?.count);
      if (count !== rows) throw countsDiffer(table, rows, count);
    }
  }

  async #begin({ table, columns, partition }: BackupTable): Promise<void> {
    const target = this.#tables.get(table);
    if (target === undefined) {
      await this.#skip(table);
      return;
    }
    assertSameColumns(table, columns, target.columns);
    await this.#emptyOnce(table);
    let name = table;
    if (target.isPartitioned) {
      if (partition === null) {
        throw new RestoreRefusedError(
          `in the backup ${table} is a hypertable: restore it into a PostgreSQL that has TimescaleDB loaded`,
        );
      }
      name = partition.name;
      await this.#ensurePartition(table, partition);
    }
    const list = columns.map((column) => pg.escapeIdentifier(column.name)).join(', ');
    const sql = `COPY ${quoteTable(name)} (${list}) FROM STDIN (FORMAT binary)`;
    this.#copy = await startCopyIn(this.#client, sql);
  }

  /** A table in one kind of database is a view that the other keeps up by itself. */
  async #skip(table: string): Promise<void> {
    const { rows } = await this.#client.query(
      `SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname = $1
       AND relkind IN ('v', 'm')`,
      [table],
    );
    if (rows.length === 0) {
      throw new RestoreRefusedError(`the backup has a table ${table} that is not Puback's`);
    }
    if (!this.skipped.includes(table)) this.skipped.push(table);
  }

  /** What migrations put there is in the backup, in its present state. */
  async #emptyOnce(table: string): Promise<void> {
    if (this.#truncated.has(table)) return;
    this.#truncated.add(table);
    await this.#client.query(`DELETE FROM ${quoteTable(table)}`);
  }

  async #ensurePartition(
    table: string,
    { name, bound, options }: NonNullable<BackupTable['partition']>,
  ): Promise<void> {
    if (!/^(FOR VALUES|DEFAULT)[^;]*$/.test(bound) || !options.every((text) => OPTION.test(text))) {
      throw new BackupUnusableError('it was changed or damaged');
    }
    const { rows } = await this.#client.query('SELECT WHERE to_regclass($1) IS NULL', [
      quoteTable(name),
    ]);
    if (rows.length === 0) return;
    const storage = options.length === 0 ? '' : ` WITH (${options.join(', ')})`;
    await this.#client.query(
      `CREATE TABLE ${quoteTable(name)} PARTITION OF ${quoteTable(table)} ${bound}${storage}`,
    );
  }
}

/** As `pg_class.reloptions` has it. */
const OPTION = /^[a-z_.]+=[\w.-]+$/;

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

  take(frame: Frame): void {
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

/** Opens the file, has it read, and says of faults what they mean. */
async function readBackup<T extends BackupReport>(
  { file, signal, onProgress }: RestoreOptions,
  read: (frames: AsyncGenerator<Frame>, tally: ReadTally) => Promise<Omit<T, 'fileBytes'>>,
): Promise<T> {
  const { size } = await stat(file).catch((error: unknown) => {
    throw new FileUnusableError('the backup', file, error);
  });
  const source = createReadStream(file, { highWaterMark: 1_048_576 });
  const tally = new ReadTally((table, rows, bytes) => {
    onProgress({ table, rows, bytes, fraction: Math.min(1, source.bytesRead / size) });
  });
  let result: Omit<T, 'fileBytes'> | null = null;
  try {
    await pipeline(
      source,
      createGunzip({ chunkSize: 262_144 }),
      async (bytes: AsyncIterable<Buffer>) => {
        result = await read(decodeFrames(bytes), tally);
      },
      { signal },
    );
  } catch (error) {
    throw toFileError(file, error);
  }
  if (result === null) throw new Error('the backup was not read');
  return { ...(result as Omit<T, 'fileBytes'>), fileBytes: size } as T;
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

async function assertEmpty(client: pg.Client, header: BackupHeader): Promise<void> {
  const migrations = await readMigrations(client);
  if (migrations.length > header.migrations.length) {
    throw new RestoreRefusedError(
      'the database has a newer schema than the backup: restore into a new, empty database',
    );
  }
  for (const table of migrations.length === 0 ? [] : ['organization', 'reading']) {
    const { rows } = await client.query(`SELECT FROM ${quoteTable(table)} LIMIT 1`);
    if (rows.length > 0) {
      throw new RestoreRefusedError(
        `the database is in use: it has rows in ${table}; restore into a new, empty database`,
      );
    }
  }
}

function assertSameColumns(
  table: string,
  given: readonly BackupColumn[],
  wanted: readonly BackupColumn[],
): void {
  const text = (columns: readonly BackupColumn[]): string =>
    columns
      .map(({ name, type }) => `${name} ${type}`)
      .toSorted()
      .join(', ');
  if (text(given) !== text(wanted)) {
    throw new RestoreRefusedError(
      `${table} has other columns in the backup (${text(given)}) than here (${text(wanted)})`,
    );
  }
}

async function setSequences(
  client: pg.Client,
  sequences: readonly BackupSequence[],
): Promise<void> {
  for (const { name, value, isCalled } of sequences) {
    await client.query(`SELECT setval(to_regclass($1), $2, $3) WHERE to_regclass($1) IS NOT NULL`, [
      quoteTable(name),
      value,
      isCalled,
    ]);
  }
}

function countsDiffer(table: string, expected: number, found: number): BackupUnusableError {
  return new BackupUnusableError(`${table} should have ${expected} rows and has ${found}`);
}

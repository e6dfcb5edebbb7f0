import pg from 'pg';
import { BackupUnusableError, RestoreRefusedError } from '../../errors.ts';
import type { BackupColumn, BackupSequence, BackupTable, Frame } from './backup-format.ts';
import { startCopyIn } from './copy-streams.ts';
import { countsDiffer } from './read-backup.ts';
import { hasHypertables, quoteTable, type CatalogTable } from './table-catalog.ts';

/** Where the frames of a backup go: a transaction on a schema that fits, with the tables it has. */
export class RestoreTarget {
  readonly #client: pg.Client;
  readonly #tables: ReadonlyMap<string, CatalogTable>;
  readonly #truncated = new Set<string>();
  readonly #hasHypertables: boolean;
  /**
   * Tables that the schema has not: partitions that were being dropped, tables of others, and what a
   * database with TimescaleDB makes anew from the readings.
   */
  readonly skipped = new Set<string>();
  #copy: Awaited<ReturnType<typeof startCopyIn>> | null = null;

  constructor(client: pg.Client, tables: readonly CatalogTable[]) {
    this.#client = client;
    this.#tables = new Map(tables.map((table) => [table.table, table]));
    this.#hasHypertables = hasHypertables(tables);
  }

  /** Does what one frame says. @throws {RestoreRefusedError} the table does not fit. */
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
      if (this.skipped.has(table)) continue;
      const { rows: found } = await this.#client.query<{ count: string }>(
        `SELECT count(*) AS count FROM ${quoteTable(table)}`,
      );
      const count = Number(found[0]?.count);
      if (count !== rows) throw countsDiffer(table, rows, count);
    }
  }

  async #begin({ table, columns, partition }: BackupTable): Promise<void> {
    const target = this.#tables.get(table);
    if (target === undefined || (this.#hasHypertables && MADE_ANEW.has(table))) {
      this.skipped.add(table);
      return;
    }
    assertSameColumns(table, columns, target.columns);
    await this.#emptyOnce(table);
    let name = table;
    if (target.isPartitioned && partition !== null) {
      name = partition.name;
      await this.#ensurePartition(table, partition);
    }
    const list = columns.map((column) => pg.escapeIdentifier(column.name)).join(', ');
    const sql = `COPY ${quoteTable(name)} (${list}) FROM STDIN (FORMAT binary)`;
    this.#copy = await startCopyIn(this.#client, sql);
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

/** Up to where the continuous aggregates are filled: those of a new database are empty. */
const MADE_ANEW: ReadonlySet<string> = new Set(['aggregate_watermark', 'aggregate_job']);
/** As `pg_class.reloptions` has it. */
const OPTION = /^[a-z_.]+=[\w.-]+$/;

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

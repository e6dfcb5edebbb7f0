import pg from 'pg';
import { StoreUnavailableError } from '../../errors.ts';
import { quoteTable, readTables, type CatalogTable } from './table-catalog.ts';

/** A table may come between two looks when a day begins; that it happens so often means something else. */
const ATTEMPTS_MAX = 5;
const LOCK_TIMEOUT_MS = 30_000;

/**
 * Opens a connection that sees the whole database as it was at one moment, until it is ended. Every
 * COMMIT before that moment is in it. Nobody is held up but who wants to drop or alter a table.
 * @returns the connection, and the tables of that moment.
 * @throws {StoreUnavailableError} tables are being altered for longer than 30 s. What the database says
 * otherwise.
 */
export async function openSnapshot(
  url: string,
): Promise<{ client: pg.Client; tables: readonly CatalogTable[] }> {
  const client = await openPlainConnection(url, 'puback backup');
  try {
    for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt += 1) {
      const tables = await takeSnapshot(client);
      if (tables !== null) return { client, tables };
    }
    throw new StoreUnavailableError('tables come and go while they are looked at');
  } catch (error) {
    await client.end();
    throw error;
  }
}

/** A connection without bounds on time, whose texts do not depend on settings of the server. */
export async function openPlainConnection(url: string, name: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, application_name: name });
  // The statement under way, or the next one, fails with the same news.
  client.on('error', () => undefined);
  await client.connect();
  await client.query(
    `SET timezone = 'UTC'; SET datestyle = 'ISO'; SET search_path = public; SET row_security = off;
     SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0;
     SET lock_timeout = ${LOCK_TIMEOUT_MS}`,
  );
  return client;
}

/**
 * The locks come first and the snapshot with the first query behind them: the other way round a table
 * that is dropped in between would be empty in the backup.
 * @returns null when there was a table in the snapshot that is not locked.
 */
async function takeSnapshot(client: pg.Client): Promise<readonly CatalogTable[] | null> {
  const locked = new Set(namesOf(await readTables(client)));
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  if (locked.size > 0) {
    const list = [...locked].map(quoteTable).join(', ');
    await client.query(`LOCK TABLE ${list} IN ACCESS SHARE MODE`);
  }
  const tables = await readTables(client);
  if (namesOf(tables).every((name) => locked.has(name))) return tables;
  await client.query('ROLLBACK');
  return null;
}

function namesOf(tables: readonly CatalogTable[]): string[] {
  return tables.flatMap(({ table, partitions }) => [table, ...partitions.map(({ name }) => name)]);
}

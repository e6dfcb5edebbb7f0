import { drizzle, type NodePgDatabase } from 'drizzle-orm/node-postgres';
import pg from 'pg';
import type { Database } from './database.ts';
import { guardStore, toStoreError } from './sqlstate.ts';

/** A transaction under way: the query builder and, for plain SQL, the connection beneath it. */
export interface Transaction {
  readonly orm: NodePgDatabase;
  readonly client: pg.PoolClient;
}

/** Longest timer of Node.js, about 24 days; the bound that the client keeps. */
const TIMER_MS_MAX = 2_147_483_647;

/**
 * Runs work in one transaction and commits it; any error rolls back and is passed on. drizzle's own
 * `transaction` is not used: it loses the connection when BEGIN fails, and a connection that dies
 * between two statements would end the process.
 * @throws {StoreUnavailableError} when the database is away. After COMMIT was sent it is not known
 * then whether the work is stored.
 */
export function inTransaction<T>(
  pool: pg.Pool,
  work: (transaction: Transaction) => Promise<T>,
): Promise<T> {
  return runTransaction(pool, 'BEGIN', work);
}

/**
 * Runs an organization's work in one transaction, as {@link inTransaction}, under a role that sees and
 * writes rows of this organization only. It is the second line: the filters of the statements stay.
 * Where the database has no such role, the filters are all there is.
 * @throws {StoreUnavailableError} as {@link inTransaction}.
 */
export function inOrganization<T>(
  database: TenantDatabase,
  organizationId: number,
  work: (transaction: Transaction) => Promise<T>,
): Promise<T> {
  return runTransaction(database.pool, beginIn(database, organizationId), work);
}

/** How a transaction of {@link inTransactionBetween} ends. */
export interface LastStatements<T> {
  /** Go to the server together with COMMIT; null: there is nothing more to write. */
  readonly text: string | null;
  /** What is returned after COMMIT, of the rows of the first of them. */
  readonly result: (rows: readonly unknown[]) => T;
}

/**
 * As {@link inOrganization}, or as {@link inTransaction} when `organizationId` is null, with a first
 * statement that goes to the server together with the beginning, and last ones together with COMMIT: two
 * ways there and back less, which counts where somebody waits and the event loop is busy. Statements are
 * without parameters; whoever writes them escapes what stands in them.
 * @param work is given the rows of the first statement.
 */
export function inTransactionBetween<Row, T>(
  database: TenantDatabase,
  organizationId: number | null,
  first: string,
  work: (transaction: Transaction, rows: readonly Row[]) => Promise<LastStatements<T>>,
): Promise<T> {
  const begin = organizationId === null ? 'BEGIN' : beginIn(database, organizationId);
  return runStatements(database.pool, `${begin}; ${first}`, (transaction, rows) =>
    work(transaction, rows as Row[]),
  );
}

function beginIn({ tenantRole }: TenantDatabase, organizationId: number): string {
  const begin = ['BEGIN', `SET LOCAL puback.organization_id = ${Math.trunc(organizationId)}`];
  if (tenantRole !== null) begin.push(`SET LOCAL ROLE ${pg.escapeIdentifier(tenantRole)}`);
  return begin.join('; ');
}

/** What {@link inOrganization} needs of the database. */
export type TenantDatabase = Pick<Database, 'pool' | 'tenantRole'>;

function runTransaction<T>(
  pool: pg.Pool,
  begin: string,
  work: (transaction: Transaction) => Promise<T>,
): Promise<T> {
  return runStatements(pool, begin, async (transaction) => {
    const result = await work(transaction);
    return { text: null, result: () => result };
  });
}

async function runStatements<T>(
  pool: pg.Pool,
  begin: string,
  work: (transaction: Transaction, rows: readonly unknown[]) => Promise<LastStatements<T>>,
): Promise<T> {
  const client = await guardStore(pool.connect());
  // The statement under way, or the next one, fails with the same news.
  const ignoreLoss = (): void => undefined;
  client.on('error', ignoreLoss);
  let isUsable = true;
  try {
    const begun = await runAll(client, begin);
    const last = await work({ orm: drizzle(client), client }, begun.at(-1)?.rows ?? []);
    const ended = await runAll(client, last.text === null ? 'COMMIT' : `${last.text}; COMMIT`);
    return last.result(ended[0]?.rows ?? []);
  } catch (error) {
    isUsable = await canRollBack(client);
    throw toStoreError(error);
  } finally {
    client.off('error', ignoreLoss);
    client.release(!isUsable);
  }
}

/**
 * Runs a statement of a transaction without a bound on its time, for work whose size only the user
 * knows. The server's bound stays lifted until the transaction ends.
 */
export async function runUnbounded(
  { client }: Transaction,
  text: string,
  values: readonly unknown[],
): Promise<void> {
  await client.query('SET LOCAL statement_timeout = 0');
  const statement = { text, values: [...values], query_timeout: TIMER_MS_MAX };
  await client.query(statement);
}

/** Of several statements pg gives a result each, whatever its types say. */
async function runAll(client: pg.PoolClient, text: string): Promise<pg.QueryResult[]> {
  return [await client.query<pg.QueryResultRow>(text)].flat();
}

async function canRollBack(client: pg.PoolClient): Promise<boolean> {
  return client.query('ROLLBACK').then(
    () => true,
    () => false,
  );
}

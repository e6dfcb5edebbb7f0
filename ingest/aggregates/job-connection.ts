import pg from 'pg';
import type { Logger } from '../../log.ts';
import { isUnavailable } from '../../drizzle/sqlstate.ts';
import { StoreUnavailableError } from '../../errors.ts';

/** Longest time of one statement of a job, in ms; steps are cut so that they stay far below it. */
const STATEMENT_MS_MAX = 60_000;

/**
 * The one connection that the jobs of a node work on, one job at a time, opened when it is needed. A
 * job holds its advisory lock on it: when the connection is lost, so is the lock, and nothing of the
 * job can go on without it.
 */
export class JobConnection {
  readonly #url: string;
  readonly #connectMs: number;
  readonly #log: Logger;
  #client: pg.Client | null = null;

  constructor(url: string, connectMs: number, log: Logger) {
    this.#url = url;
    this.#connectMs = connectMs;
    this.#log = log;
  }

  /** Runs work on the connection, which is given up when it fails. @throws {StoreUnavailableError} */
  async use<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
    try {
      return await work(await this.#open());
    } catch (error) {
      await this.close();
      throw isUnavailable(error) ? new StoreUnavailableError(error) : error;
    }
  }

  /** Ends the connection. The next use opens another. */
  async close(): Promise<void> {
    const client = this.#client;
    this.#client = null;
    await client?.end().catch((err: unknown) => this.#log.debug({ err }, 'connection not closed'));
  }

  async #open(): Promise<pg.Client> {
    if (this.#client !== null) return this.#client;
    const client = new pg.Client({
      connectionString: this.#url,
      connectionTimeoutMillis: this.#connectMs,
      statement_timeout: STATEMENT_MS_MAX,
      query_timeout: STATEMENT_MS_MAX + this.#connectMs,
      keepAlive: true,
      application_name: 'puback aggregates',
    });
    client.on('error', (err) => {
      this.#log.debug({ err: err.message }, 'connection of the aggregates lost');
      if (this.#client === client) this.#client = null;
    });
    await client.connect();
    this.#client = client;
    return client;
  }
}

/**
 * Runs work that only one node may do at a time, under an advisory lock of the session.
 * @returns false when another holds the lock; nothing was done then.
 */
export async function withJobLock(
  client: pg.Client,
  job: string,
  work: () => Promise<void>,
): Promise<boolean> {
  const key = [`puback aggregates ${job}`];
  const { rows } = await client.query<{ got: boolean }>(
    'SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS got',
    key,
  );
  if (rows[0]?.got !== true) return false;
  try {
    await work();
  } finally {
    await client.query('SELECT pg_advisory_unlock(hashtextextended($1, 0))', key).catch(() => {
      // The connection is lost, and the lock with it.
    });
  }
  return true;
}

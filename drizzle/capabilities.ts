import pg from 'pg';
import { DatabaseUnsupportedError } from '../errors.ts';

/** What the database can do beyond plain PostgreSQL. Code asks for these, never for a product's name. */
export interface Capabilities {
  /** `reading` is cut into chunks by TimescaleDB. False: native daily partitions, as fast to write. */
  readonly hypertables: boolean;
  /** Old chunks can be compressed. False: about ten times the disk for the same history. */
  readonly columnstore: boolean;
  /** Rollups are kept up by the database. False: rollup tables of our own. */
  readonly continuousAggregates: boolean;
  /**
   * The database itself keeps the queries of an organization to its rows; see `inOrganization`. False:
   * only the filters of the program do.
   */
  readonly rowSecurity: boolean;
}

const VERSION_MIN = 150_000;

/**
 * Makes TimescaleDB usable in this database where the server has it loaded. On a connection of its own,
 * because CREATE EXTENSION ends the connection when the library is not preloaded.
 * @throws {DatabaseUnsupportedError} on a server older than PostgreSQL 15.
 */
export async function prepareExtension(url: string, timeoutMs: number): Promise<void> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: timeoutMs });
  // The ending of this connection is told by the query that was under way.
  client.on('error', () => undefined);
  await client.connect();
  try {
    // An ordinary user may not see the list of libraries, but the settings that they make.
    const { rows } = await client.query<{
      version: number;
      preloaded: boolean;
      available: boolean;
    }>(
      `SELECT current_setting('server_version_num')::int4 AS version,
              CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE')
                THEN current_setting('shared_preload_libraries') LIKE '%timescaledb%'
                ELSE EXISTS (SELECT FROM pg_settings WHERE name = 'timescaledb.max_background_workers')
              END AS preloaded,
              EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb') AS available`,
    );
    const server = rows[0];
    if (server === undefined || server.version < VERSION_MIN) {
      throw new DatabaseUnsupportedError(
        `PostgreSQL 15 or newer is needed; the server says ${server?.version ?? 'nothing'}`,
      );
    }
    if (server.preloaded && server.available) {
      await client.query('CREATE EXTENSION IF NOT EXISTS timescaledb');
    }
  } finally {
    await client.end();
  }
}

/**
 * Looks at what `reading` and its rollups really are in the migrated database: they decide, not the
 * extension and its licence of today.
 */
export async function findCapabilities(
  client: pg.Client,
): Promise<Omit<Capabilities, 'rowSecurity'>> {
  const none = { hypertables: false, columnstore: false, continuousAggregates: false };
  const { rows } = await client.query(`SELECT FROM pg_extension WHERE extname = 'timescaledb'`);
  if (rows.length === 0) return none;
  const found = await client.query<Omit<Capabilities, 'rowSecurity'>>(
    `SELECT count(*) = 1 AS hypertables, coalesce(bool_or(compression_enabled), false) AS columnstore,
            EXISTS (SELECT FROM timescaledb_information.continuous_aggregates
                    WHERE view_name = 'reading_1m') AS "continuousAggregates"
     FROM timescaledb_information.hypertables WHERE hypertable_name = 'reading'`,
  );
  return found.rows[0] ?? none;
}

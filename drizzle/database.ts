import { drizzle, type NodePgDatabase } from 'drizzle-orm/node-postgres';
import pg from 'pg';
import type { Logger } from '../log.ts';
import { findCapabilities, prepareExtension, type Capabilities } from './capabilities.ts';
import { migrateDatabase } from './migrate.ts';
import * as schema from './schema.ts';

/** The open database: a pool for lookups and the API, and what the server can do. */
export interface Database {
  /** Connection string, for parts that keep a connection of their own (the writer). */
  readonly url: string;
  readonly pool: pg.Pool;
  readonly orm: NodePgDatabase<typeof schema>;
  readonly capabilities: Capabilities;
  /** The role under which an organization's queries run; null without row security. */
  readonly tenantRole: string | null;
  /** As the server writes it, for example `18.4`. */
  readonly serverVersion: string;
  close(): Promise<void>;
}

/** How to reach the database and how long to wait for it. */
export interface DatabaseOptions {
  readonly url: string;
  readonly connectionsMax: number;
  /** Bound of a connect and of a statement. */
  readonly timeoutMs: number;
  readonly log: Logger;
}

/**
 * Prepares, migrates and opens the database, in this order: extension, migrations, role of tenants,
 * capabilities, pool.
 * @throws {DatabaseUnsupportedError} older than PostgreSQL 15. @throws {DatabaseNewerError} used by a
 * newer Puback. Connection faults are thrown as `pg` made them.
 */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const { url, timeoutMs, log } = options;
  await prepareExtension(url, timeoutMs);
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: timeoutMs });
  client.on('error', (err) => log.warn({ err }, 'database connection lost during start'));
  await client.connect();
  let capabilities: Capabilities;
  let serverVersion: string;
  let tenantRole: string | null;
  try {
    const migrated = await migrateDatabase(client);
    const { applied } = migrated;
    tenantRole = migrated.tenantRole.name;
    capabilities = { ...(await findCapabilities(client)), rowSecurity: tenantRole !== null };
    const version = await client.query<{ server_version: string }>('SHOW server_version');
    serverVersion = version.rows[0]?.server_version.split(' ')[0] ?? 'unknown';
    log.info({ serverVersion, applied, ...capabilities }, 'database ready');
    const { reason } = migrated.tenantRole;
    if (reason !== null) log.warn({ reason }, 'row security not in use, see docs/operations.md');
  } finally {
    await client.end();
  }
  const pool = new pg.Pool({
    connectionString: url,
    max: options.connectionsMax,
    connectionTimeoutMillis: timeoutMs,
    statement_timeout: timeoutMs,
    query_timeout: timeoutMs + 1000,
    application_name: 'puback',
  });
  let isClosing = false;
  // An idle connection that dies is replaced by the pool; without a listener it would end the process.
  pool.on('error', (err) => {
    if (!isClosing) log.warn({ err: err.message }, 'idle database connection lost');
  });
  return {
    url,
    pool,
    orm: drizzle(pool, { schema }),
    capabilities,
    tenantRole,
    serverVersion,
    close() {
      isClosing = true;
      return pool.end();
    },
  };
}

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { drizzle } from 'drizzle-orm/node-postgres';
import { migrate } from 'drizzle-orm/node-postgres/migrator';
import type pg from 'pg';
import { DatabaseNewerError } from '../errors.ts';
import { findPackageRoot } from './package-root.ts';
import { prepareTenantRole, type TenantRole } from './tenant-role.ts';

/** Any constant does; it names this lock among those of other programs on the same database. */
const MIGRATION_LOCK = 7_082_263;

/** What {@link migrateDatabase} leaves behind. */
export interface Migrated {
  readonly applied: number;
  readonly tenantRole: TenantRole;
}

/**
 * Brings the schema up to this program's version. Runs under an advisory lock on `client`, so that of
 * two programs that start at once one migrates and the other waits and finds nothing to do. All pending
 * migrations commit together or not at all. Under the same lock the role of tenants is made.
 * @returns how many migrations were applied now, and the role.
 * @throws {DatabaseNewerError} when a newer Puback has used the database; nothing is changed then.
 */
export async function migrateDatabase(client: pg.Client): Promise<Migrated> {
  const known = readJournal();
  await client.query('SELECT pg_advisory_lock($1)', [MIGRATION_LOCK]);
  try {
    const before = await countApplied(client);
    if (before > known.length) throw new DatabaseNewerError(before, known.length);
    await migrate(drizzle(client), { migrationsFolder: migrationsFolder() });
    const after = await countApplied(client);
    if (after !== known.length) {
      throw new Error(`migrations applied: ${after}, in the journal: ${known.length}`);
    }
    return { applied: after - before, tenantRole: await prepareTenantRole(client) };
  } finally {
    await client.query('SELECT pg_advisory_unlock($1)', [MIGRATION_LOCK]);
  }
}

/** The migrations of this program in order; `when` strictly increases, or drizzle would skip one. */
export function readJournal(): readonly { tag: string; when: number }[] {
  const text = readFileSync(join(migrationsFolder(), 'meta', '_journal.json'), 'utf8');
  return (JSON.parse(text) as { entries: { tag: string; when: number }[] }).entries;
}

function migrationsFolder(): string {
  return join(findPackageRoot(), 'drizzle', 'migrations');
}

async function countApplied(client: pg.Client): Promise<number> {
  const table = await client.query<{ exists: boolean }>(
    `SELECT to_regclass('drizzle.__drizzle_migrations') IS NOT NULL AS exists`,
  );
  if (!table.rows[0]?.exists) return 0;
  const applied = await client.query<{ count: number }>(
    'SELECT count(*)::int4 AS count FROM drizzle.__drizzle_migrations',
  );
  return applied.rows[0]?.count ?? 0;
}

import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { drizzle } from 'drizzle-orm/node-postgres';
import { migrate } from 'drizzle-orm/node-postgres/migrator';
import type pg from 'pg';
import { BackupUnusableError } from '../../errors.ts';
import { readJournal } from '../migrate.ts';
import { findPackageRoot } from '../package-root.ts';

/** `when` of the migrations that the database has, in order; empty for one that has none. */
export async function readMigrations(client: pg.Client): Promise<number[]> {
  const { rows: found } = await client.query<{ exists: boolean }>(
    `SELECT to_regclass('drizzle.__drizzle_migrations') IS NOT NULL AS exists`,
  );
  if (found[0]?.exists !== true) return [];
  const { rows } = await client.query<{ when: string }>(
    'SELECT created_at AS "when" FROM drizzle.__drizzle_migrations ORDER BY created_at',
  );
  return rows.map(({ when }) => Number(when));
}

/**
 * Checks that the schema of a backup is one of this program's line.
 * @throws {BackupUnusableError} made by a newer Puback, or not by Puback.
 */
export function assertKnownSchema(migrations: readonly number[]): void {
  const known = readJournal();
  if (migrations.length > known.length) {
    throw new BackupUnusableError(
      `it was made with ${migrations.length} migrations and this program knows ${known.length}: restore it with the Puback that made it, or a newer one`,
    );
  }
  if (migrations.length === 0 || migrations.some((when, index) => when !== known[index]?.when)) {
    throw new BackupUnusableError('its schema is none that this program ever had');
  }
}

/** Brings an empty or older schema to the first `count` migrations of this program, and no further. */
export async function migrateTo(client: pg.Client, count: number): Promise<void> {
  const source = join(findPackageRoot(), 'drizzle', 'migrations');
  const folder = await mkdtemp(join(tmpdir(), 'puback-migrations-'));
  try {
    const entries = readJournal().slice(0, count);
    await mkdir(join(folder, 'meta'));
    const journal = { version: '7', dialect: 'postgresql', entries };
    await writeFile(join(folder, 'meta', '_journal.json'), JSON.stringify(journal));
    for (const { tag } of entries) {
      await copyFile(join(source, `${tag}.sql`), join(folder, `${tag}.sql`));
    }
    await migrate(drizzle(client), { migrationsFolder: folder });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

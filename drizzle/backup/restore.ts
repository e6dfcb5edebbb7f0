import type pg from 'pg';
import { RestoreRefusedError } from '../../errors.ts';
import { prepareExtension } from '../capabilities.ts';
import { migrateDatabase } from '../migrate.ts';
import type { BackupReport } from './backup.ts';
import type { BackupHeader } from './backup-format.ts';
import { readBackup, type OpenBackup, type ReadOptions } from './read-backup.ts';
import { RestoreTarget } from './restore-target.ts';
import { assertKnownSchema, migrateTo, readMigrations } from './schema-version.ts';
import { openPlainConnection } from './snapshot.ts';
import { quoteTable, readTables } from './table-catalog.ts';

/** What was restored, and what was left to be made anew. */
export interface RestoreReport extends BackupReport {
  readonly header: BackupHeader;
  /** Tables of the backup that are not Puback's, or that this database makes anew. */
  readonly skipped: readonly string[];
}

const CONNECT_TIMEOUT_MS = 30_000;

/**
 * Reads a whole backup and compares its checksum and counts. Writes nothing.
 * @throws {BackupUnusableError} @throws {FileUnusableError}
 */
export async function checkBackup(options: ReadOptions): Promise<RestoreReport> {
  return readBackup(options, async ({ header, frames, sums }) => {
    for await (const _frame of frames);
    return { ...sums(), header, skipped: [] };
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
export async function restoreBackup(url: string, options: ReadOptions): Promise<RestoreReport> {
  return readBackup(options, async (backup) => {
    const { header, sums } = backup;
    assertKnownSchema(header.migrations);
    await prepareExtension(url, CONNECT_TIMEOUT_MS);
    const client = await openPlainConnection(url, 'puback restore');
    try {
      await assertEmpty(client, header);
      await migrateTo(client, header.migrations.length);
      const skipped = await copyAll(client, backup);
      await client.query('ANALYZE');
      await migrateDatabase(client);
      return { ...sums(), header, skipped };
    } finally {
      await client.end();
    }
  });
}

/** @returns the tables that were left out. */
async function copyAll(
  client: pg.Client,
  { frames, sums }: OpenBackup,
): Promise<readonly string[]> {
  await client.query('BEGIN');
  const target = new RestoreTarget(client, await readTables(client));
  for await (const frame of frames) await target.take(frame);
  await target.assertCounts(sums().rows);
  await client.query('COMMIT');
  return [...target.skipped];
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

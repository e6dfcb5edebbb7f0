import pg from 'pg';
import { onTestServer, type TestDatabase } from './database.ts';

/** Runs something while nobody is let into the database, and whoever was in is sent out. */
export async function whileAway(
  { database }: TestDatabase,
  run: () => Promise<void>,
): Promise<void> {
  const { rows } = await database.pool.query<{ name: string }>('SELECT current_database() AS name');
  const name = rows[0]?.name ?? '';
  await onTestServer(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
  try {
    await onTestServer(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`,
    );
    await run();
  } finally {
    await onTestServer(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`);
  }
}

/** Runs something while nobody can read or write a table: who tries gets no answer. */
export async function whileLocked(
  { url }: TestDatabase,
  table: string,
  run: () => Promise<void>,
): Promise<void> {
  const locker = new pg.Client({ connectionString: url });
  await locker.connect();
  try {
    await locker.query(`BEGIN; LOCK TABLE ${table} IN ACCESS EXCLUSIVE MODE`);
    await run();
    await locker.query('ROLLBACK');
  } finally {
    await locker.end();
  }
}

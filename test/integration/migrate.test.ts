import pg from 'pg';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openDatabase, type Database } from '../../drizzle/database.ts';
import { readJournal } from '../../drizzle/migrate.ts';
import {
  createEmptyDatabase,
  createTestDatabase,
  type EmptyDatabase,
} from '../support/database.ts';

const log = pino({ level: 'silent' });
const open = (url: string): Promise<Database> =>
  openDatabase({ url, connectionsMax: 2, timeoutMs: 10_000, log });

describe('migrations', () => {
  let empty: EmptyDatabase;
  beforeEach(async () => {
    empty = await createEmptyDatabase();
  });
  afterEach(() => empty.drop());

  it('D-15 run once when four programs start at the same moment', async () => {
    const databases = await Promise.all(Array.from({ length: 4 }, () => open(empty.url)));
    const { rows } = await (databases[0] as Database).pool.query<{ count: number }>(
      'SELECT count(*)::int4 AS count FROM drizzle.__drizzle_migrations',
    );
    expect(rows[0]?.count).toBe(readJournal().length);
    await Promise.all(databases.map((database) => database.close()));
  });

  it('D-16 of a newer program make this one refuse to start, and change nothing', async () => {
    const database = await open(empty.url);
    await database.pool.query(
      `INSERT INTO drizzle.__drizzle_migrations (hash, created_at) VALUES ('later', 9999999999999)`,
    );
    await database.close();
    await expect(open(empty.url)).rejects.toMatchObject({ code: 'DATABASE_NEWER' });
  });

  it('D-15 that were killed half-way leave a database that the next start finishes', async () => {
    const client = new pg.Client({ connectionString: empty.url });
    await client.connect();
    await client.query('SELECT pg_advisory_lock(7082263)');
    const opening = open(empty.url);
    await new Promise((resolve) => setTimeout(resolve, 100));
    await client.end();
    const database = await opening;
    await database.close();
    await (await open(empty.url)).close();
  });
});

describe('the schema', () => {
  it('has every index and constraint under a name of its own', async () => {
    const { database, drop } = await createTestDatabase();
    const { rows } = await database.pool.query<{ name: string }>(
      `SELECT conname AS name FROM pg_constraint
       JOIN pg_class ON pg_class.oid = conrelid
       WHERE pg_class.relnamespace = 'public'::regnamespace AND relname !~ '^_' AND contype <> 'n'
         AND NOT relispartition AND conname ~ '_key[0-9]+$|_check[0-9]+$'`,
    );
    expect(rows).toEqual([]);
    await drop();
  });

  it('keeps readings by UTC day, whatever the session thinks of time zones', async () => {
    const { database, drop } = await createTestDatabase();
    if (!database.capabilities.hypertables) {
      const client = await database.pool.connect();
      await client.query(`SET timezone = 'Asia/Tokyo'`);
      await client.query(`SELECT reading_partition_ensure('2026-03-01')`);
      await client.query(`SET timezone = 'UTC'`);
      const { rows } = await client.query<{ bound: string }>(
        `SELECT pg_get_expr(relpartbound, oid) AS bound FROM pg_class WHERE relname = 'reading_20260301'`,
      );
      expect(rows[0]?.bound).toBe(
        `FOR VALUES FROM ('2026-03-01 00:00:00+00') TO ('2026-03-02 00:00:00+00')`,
      );
      client.release();
    }
    await drop();
  });

  it('makes a partition once when two programs need it at the same moment', async () => {
    const { database, drop } = await createTestDatabase();
    if (!database.capabilities.hypertables) {
      const made = await Promise.all(
        Array.from({ length: 6 }, async () => {
          const { rows } = await database.pool.query<{ made: boolean }>(
            `SELECT reading_partition_ensure('2026-04-01') AS made`,
          );
          return rows[0]?.made;
        }),
      );
      expect(made.filter(Boolean)).toHaveLength(1);
    }
    await drop();
  });

  it('shows names instead of integer keys in its views', async () => {
    const { database, drop } = await createTestDatabase();
    const { rows } = await database.pool.query<{ table_name: string; columns: string }>(
      `SELECT table_name, string_agg(column_name, ' ' ORDER BY ordinal_position) AS columns
       FROM information_schema.columns
       WHERE table_schema = 'public' AND table_name IN ('v_reading', 'v_latest', 'v_device')
       GROUP BY table_name ORDER BY table_name`,
    );
    expect(rows).toEqual([
      {
        table_name: 'v_device',
        columns:
          'organization device display_name tags created_at disabled_at last_received_at metric_count',
      },
      {
        table_name: 'v_latest',
        columns: 'organization device metric kind unit time value text_value received_at quality',
      },
      {
        table_name: 'v_reading',
        columns: 'time organization device metric kind unit value text_value received_at quality',
      },
    ]);
    await drop();
  });
});

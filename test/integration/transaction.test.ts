import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inTransaction } from '../../drizzle/transaction.ts';
import { StoreUnavailableError } from '../../errors.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

let test: TestDatabase;
beforeAll(async () => {
  test = await createTestDatabase();
});
afterAll(() => test.drop());

describe('inTransaction', () => {
  it('commits all or nothing', async () => {
    const { pool } = test.database;
    await pool.query('CREATE TABLE noted (value int)');
    await inTransaction(pool, ({ client }) => client.query('INSERT INTO noted VALUES (1)'));
    const failed = inTransaction(pool, async ({ client }) => {
      await client.query('INSERT INTO noted VALUES (2)');
      throw new Error('changed my mind');
    });
    await expect(failed).rejects.toThrow('changed my mind');
    expect((await pool.query('SELECT value FROM noted')).rows).toEqual([{ value: 1 }]);
  });

  it('survives a connection that dies between two statements, and gives it back', async () => {
    const pool = new pg.Pool({ connectionString: test.url, max: 1 });
    pool.on('error', () => undefined);
    for (let round = 0; round < 3; round += 1) {
      const killed = inTransaction(pool, async ({ client }) => {
        const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
        await test.database.pool.query('SELECT pg_terminate_backend($1)', [rows[0]?.pid]);
        await client.query('SELECT 1');
      });
      await expect(killed).rejects.toThrow(StoreUnavailableError);
    }
    expect((await pool.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    await pool.end();
  });
});

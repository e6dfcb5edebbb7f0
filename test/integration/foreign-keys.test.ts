import { afterAll, beforeAll, expect, it } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

let test: TestDatabase;
beforeAll(async () => {
  test = await createTestDatabase();
});
afterAll(() => test.drop());

it('every foreign key that deletes along has an index of its columns', async () => {
  const { rows } = await test.database.pool.query<{ name: string; is_indexed: boolean }>(
    `SELECT conname AS name, EXISTS (
       SELECT FROM pg_index
       WHERE indrelid = conrelid AND indpred IS NULL
         AND (indkey::int2[])[0:cardinality(conkey) - 1] = conkey
     ) AS is_indexed
     FROM pg_constraint WHERE contype = 'f' AND confdeltype = 'c' AND conparentid = 0`,
  );
  expect(rows.length).toBeGreaterThan(3);
  expect(rows.filter((row) => !row.is_indexed)).toEqual([]);
});

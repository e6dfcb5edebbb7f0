import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestApp, type TestApp } from '../support/app.ts';

const DAY_MS = 86_400_000;
const hasServer = (process.env['TEST_DATABASE_URL'] ?? '') !== '';
if (!hasServer) {
  console.warn('SKIPPED: D-12, late data into compressed chunks: TEST_DATABASE_URL is not set');
}

describe.runIf(hasServer)('D-12 a late reading of a compressed chunk', () => {
  let app: TestApp;
  beforeAll(async () => {
    app = await startTestApp();
  });
  afterAll(() => app.stop());

  it('is stored, and a copy of one that is in there is not', async ({ skip }) => {
    const { pool, capabilities } = app.testDatabase.database;
    if (!capabilities.hypertables) {
      console.warn('SKIPPED: D-12: the server of TEST_DATABASE_URL has no TimescaleDB');
      skip();
    }
    const client = await app.connect(app.deviceKey);
    const old = Date.now() - 20 * DAY_MS;
    for (let n = 0; n < 10; n += 1) {
      await client.publishAsync('v1/me/data', `{"ts":${old + n},"v":${n}}`, { qos: 1 });
    }
    const { rowCount } = await pool.query(`SELECT compress_chunk(chunk)
      FROM show_chunks('reading', older_than => now() - interval '10 days') AS chunk`);
    expect(rowCount).toBeGreaterThan(0);
    await Promise.all([
      client.publishAsync('v1/me/data', `{"ts":${old + 5},"v":-1}`, { qos: 1 }),
      client.publishAsync('v1/me/data', `{"ts":${old + 10},"v":10}`, { qos: 1 }),
      client.publishAsync('v1/me/data', `{"ts":${Date.now()},"v":11}`, { qos: 1 }),
    ]);
    const { rows } = await pool.query<{ value: number }>(
      `SELECT value FROM v_reading WHERE metric = 'v' ORDER BY time`,
    );
    expect(rows.map(({ value }) => value)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  });
});

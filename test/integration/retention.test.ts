import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { cutOf } from '../../ingest/aggregates/organization-retention.ts';
import { listPartitions } from '../../ingest/aggregates/partition-drop.ts';
import { createTestAggregates } from '../support/aggregates.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { eventually } from '../support/eventually.ts';
import { ensureDays, ensureMetric, insertReading } from '../support/readings.ts';
import { createOrganization, createTestRegistry } from '../support/registry.ts';

const DAY = 86_400_000;
const NOW = Date.now();
/** Rows of each kind that are written while the jobs run, at least. */
const ROWS_MIN = 1000;
const isoDay = (ms: number): string => new Date(ms).toISOString().slice(0, 10);
const isoTime = (ms: number): string => new Date(ms).toISOString();

let test: TestDatabase;
/** One that keeps all, one that keeps less. */
let long: { organizationId: number; deviceId: number; metricId: number };
let short: { organizationId: number; deviceId: number; metricId: number };
beforeAll(async () => {
  test = await createTestDatabase();
  long = await createOwner('long');
  short = await createOwner('short');
});
afterAll(() => test.drop());
beforeEach(async () => {
  await test.database.pool.query(
    'TRUNCATE reading, retention, raw_deletion, dirty_range, device_latest',
  );
  const rollups = await test.database.pool.query<{ relation: string }>(
    'SELECT relation::text FROM rollup_tables()',
  );
  for (const { relation } of rollups.rows)
    await test.database.pool.query(`DELETE FROM ${relation}`);
  await test.database.pool.query(`UPDATE aggregate_watermark SET watermark = '-infinity'`);
  await ensureDays(test.database, isoDay(NOW - 40 * DAY), isoDay(NOW + 2 * DAY));
});

async function createOwner(slug: string): Promise<typeof long> {
  const { author } = await createOrganization(test.database, slug);
  const { organizationId } = author;
  const { deviceId } = await createTestRegistry(test.database).devices.create(author, { slug });
  const metricId = await ensureMetric(test.database, organizationId, 'temp');
  return { organizationId, deviceId, metricId };
}

async function insertDaily({ deviceId, metricId }: typeof long, days: number): Promise<void> {
  for (let day = days; day >= 0; day -= 1) {
    await insertReading(test.database, {
      ...{ deviceId, metricId, time: isoTime(NOW - day * DAY), value: day },
    });
  }
}

async function oldest(relation: string, column: string, deviceId: number): Promise<number> {
  const { rows } = await test.database.pool.query<{ oldest: Date }>(
    `SELECT min(${column}) AS oldest FROM ${relation} WHERE device_id = $1`,
    [deviceId],
  );
  return rows[0]?.oldest.getTime() ?? NaN;
}

async function askFor(organizationId: number, name: string, days: number): Promise<void> {
  await test.database.pool.query(
    `INSERT INTO retention VALUES ($1, $2, $3)
     ON CONFLICT (organization_id, class) DO UPDATE SET days = excluded.days`,
    [organizationId, name, days],
  );
}

async function runRetention(): Promise<void> {
  const aggregates = createTestAggregates(test.database, { clock: () => NOW });
  await aggregates.run('retention');
  await aggregates.stop();
}

async function refresh(): Promise<void> {
  const aggregates = createTestAggregates(test.database, { clock: () => NOW });
  await aggregates.run('refresh');
  await aggregates.stop();
}

describe('retention', () => {
  it('drops whole days that no organization keeps, and keeps the aggregates of them', async () => {
    await insertDaily(long, 35);
    // Nothing goes that is not aggregated yet, as after an upgrade.
    await runRetention();
    expect(await oldest('reading', 'time', long.deviceId)).toBe(NOW - 35 * DAY);
    await refresh();
    await runRetention();
    expect(await oldest('reading', 'time', long.deviceId)).toBe(NOW - 30 * DAY);
    expect(await oldest('reading_1m', 'bucket', long.deviceId)).toBe(
      Math.floor((NOW - 35 * DAY) / 60_000) * 60_000,
    );
    expect(cutOf(NOW, 30)).toBeLessThanOrEqual(NOW - 30 * DAY);
  });

  it('deletes the rows of an organization that keeps less, and no others', async () => {
    await insertDaily(long, 20);
    await insertDaily(short, 20);
    await refresh();
    await askFor(short.organizationId, 'raw', 12);
    await askFor(short.organizationId, '1m', 15);
    await runRetention();
    expect(await oldest('reading', 'time', long.deviceId)).toBe(NOW - 20 * DAY);
    expect(await oldest('reading', 'time', short.deviceId)).toBe(NOW - 12 * DAY);
    const minute = (ms: number): number => Math.floor(ms / 60_000) * 60_000;
    expect(await oldest('reading_1m', 'bucket', short.deviceId)).toBe(minute(NOW - 15 * DAY));
    expect(await oldest('reading_1m', 'bucket', long.deviceId)).toBe(minute(NOW - 20 * DAY));
    expect(await oldest('reading_1h', 'bucket', short.deviceId)).toBe(
      Math.floor((NOW - 20 * DAY) / 3_600_000) * 3_600_000,
    );
  });

  it('never deletes what a reading that is taken in may still be aggregated with', async () => {
    await insertDaily(short, 20);
    // The bound of the tests is 10 days; a row of the table may say what it likes.
    await askFor(short.organizationId, 'raw', 1);
    await askFor(long.organizationId, 'raw', 1);
    await refresh();
    await runRetention();
    expect(await oldest('reading', 'time', short.deviceId)).toBe(NOW - 10 * DAY);
  });

  it('leaves aggregates alone whose raw readings are deleted, whatever comes late for them', async () => {
    await insertDaily(short, 20);
    await refresh();
    await askFor(short.organizationId, 'raw', 12);
    await runRetention();
    const late = NOW - 15 * DAY;
    await insertReading(test.database, { ...short, time: isoTime(late + 1000), value: 1 });
    await test.database.pool.query(
      `INSERT INTO dirty_range (device_id, hour) VALUES ($1, date_trunc('hour', $2::timestamptz, 'UTC'))`,
      [short.deviceId, isoTime(late)],
    );
    await refresh();
    const { rows } = await test.database.pool.query<{ last: number }>(
      `SELECT last FROM reading_1d
       WHERE device_id = $1 AND bucket = date_trunc('day', $2::timestamptz, 'UTC')`,
      [short.deviceId, isoTime(late)],
    );
    expect(rows).toEqual([{ last: 15 }]);
    const notes = await test.database.pool.query('SELECT FROM dirty_range');
    expect(notes.rowCount).toBe(0);
  });
});

describe('dropping of partitions', () => {
  it('waits for nobody who reads, and is made good by the next run', async ({ skip }) => {
    skip(test.database.capabilities.hypertables, 'chunks are dropped by TimescaleDB');
    await insertDaily(long, 35);
    await refresh();
    const reader = new pg.Client({ connectionString: test.url });
    await reader.connect();
    await reader.query('BEGIN');
    await reader.query('SELECT count(*) FROM reading');
    const aggregates = createTestAggregates(test.database, { clock: () => NOW });
    await expect(aggregates.run('retention')).rejects.toThrow('in use');
    // Whoever comes now is not held up by what waits.
    const startedAt = performance.now();
    await insertReading(test.database, { ...long, time: isoTime(NOW + 1), value: 1 });
    expect(performance.now() - startedAt).toBeLessThan(10_000);
    await reader.query('COMMIT');
    await reader.end();
    await eventually('that the days are dropped', () => aggregates.run('retention'));
    await aggregates.stop();
    expect(await oldest('reading', 'time', long.deviceId)).toBe(NOW - 30 * DAY);
  });

  it('clears away what a killed program left detached', async ({ skip }) => {
    skip(test.database.capabilities.hypertables, 'chunks are dropped by TimescaleDB');
    const day = isoDay(NOW - 38 * DAY).replaceAll('-', '');
    await refresh();
    await test.database.pool.query(`ALTER TABLE reading DETACH PARTITION reading_${day}`);
    await runRetention();
    const client = new pg.Client({ connectionString: test.url });
    await client.connect();
    const left = await listPartitions(client, { name: 'reading', partitionDays: 1 });
    await client.end();
    expect(left.every(({ fromMs, isAttached }) => isAttached && fromMs >= cutOf(NOW, 30))).toBe(
      true,
    );
  });
});

describe('retention and refresh while rows are written (D-18)', () => {
  it('let no writer wait a second for a lock, and lose no row at the boundary', async () => {
    await insertDaily(long, 35);
    await insertDaily(short, 35);
    await askFor(short.organizationId, 'raw', 12);
    await refresh();
    const writer = new pg.Client({ connectionString: test.url });
    await writer.connect();
    // A writer that waits longer for a lock fails, and the test; how fast the machine is says nothing.
    await writer.query(`SET lock_timeout = '1s'`);
    let isDone = false;
    let written = 0;
    const write = async (): Promise<void> => {
      while (!isDone) {
        // Rows of now and of the first moments that are kept, with their notes, as the writer does it.
        const from = written;
        written += 50;
        await writer.query('BEGIN');
        for (const { fromMs, owner } of [
          { fromMs: NOW, owner: long },
          { fromMs: cutOf(NOW, 30), owner: long },
          { fromMs: cutOf(NOW, 12), owner: short },
        ]) {
          await writer.query(
            `WITH stored AS (
               INSERT INTO reading
               SELECT $1::timestamptz + (n * interval '7 ms'), $2, $3, n, NULL, now(), 0
               FROM generate_series($4::int4, $5::int4 - 1) AS n ON CONFLICT DO NOTHING
               RETURNING time)
             INSERT INTO dirty_range (device_id, hour)
             SELECT DISTINCT $2, date_trunc('hour', time, 'UTC') FROM stored`,
            [isoTime(fromMs + 1), owner.deviceId, owner.metricId, from, written],
          );
        }
        await writer.query('COMMIT');
        await delay(10);
      }
    };
    const writing = write().finally(() => (isDone = true));
    const aggregates = createTestAggregates(test.database, { clock: () => NOW });
    const enough = (round: number): boolean => isDone || (round >= 3 && written >= ROWS_MIN);
    for (let round = 0; !enough(round); round += 1) {
      await Promise.all([
        aggregates.run('refresh'),
        eventually('a run of retention', () => aggregates.run('retention').catch(() => false)),
      ]);
    }
    isDone = true;
    await writing;
    await writer.end();
    await aggregates.run('refresh');
    await aggregates.stop();
    const { rows } = await test.database.pool.query<{ device_id: number; found: number }>(
      `SELECT device_id, count(*)::int4 AS found FROM reading WHERE received_at > $1::timestamptz
         AND quality = 0 AND time <> received_at GROUP BY 1 ORDER BY 1`,
      [isoTime(NOW)],
    );
    expect(written).toBeGreaterThanOrEqual(ROWS_MIN);
    expect(await oldest('reading', 'time', long.deviceId)).toBeGreaterThanOrEqual(cutOf(NOW, 30));
    expect(await oldest('reading', 'time', short.deviceId)).toBeGreaterThanOrEqual(cutOf(NOW, 12));
    expect(new Map(rows.map(({ device_id, found }) => [device_id, found]))).toEqual(
      new Map([
        [long.deviceId, 2 * written],
        [short.deviceId, written],
      ]),
    );
    await expectAggregatesEqualRaw();
  }, 60_000);
});

/** Where raw readings are whole. */
async function expectAggregatesEqualRaw(): Promise<void> {
  const { rows } = await test.database.pool.query<{ wrong: number }>(
    `SELECT count(*)::int4 AS wrong FROM (
       SELECT device_id, date_trunc('hour', time, 'UTC') AS bucket, count(*) AS count
       FROM reading WHERE time >= $1::timestamptz GROUP BY 1, 2) AS raw
     FULL JOIN (SELECT * FROM reading_1h WHERE bucket >= $1::timestamptz) AS made
       USING (device_id, bucket)
     WHERE raw.count IS DISTINCT FROM made.count`,
    [isoTime(cutOf(NOW, 11))],
  );
  expect(rows).toEqual([{ wrong: 0 }]);
}

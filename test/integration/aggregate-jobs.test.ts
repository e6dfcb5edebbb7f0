import pg from 'pg';
import { pino } from 'pino';
import { Registry as MetricsRegistry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DatabaseJobs } from '../../ingest/aggregates/database-jobs.ts';
import { windowsOf } from '../../ingest/aggregates/continuous-materializer.ts';
import { createTestAggregates, TEST_MARGIN_MS } from '../support/aggregates.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { ensureDays, ensureMetric, insertReading } from '../support/readings.ts';
import {
  createOrganization,
  createTestRegistry,
  type TestOrganization,
} from '../support/registry.ts';

const MINUTE = 60_000;
const HOUR = 3_600_000;
const DAY = 86_400_000;
/** Noon, three days ago. */
const NOON = Math.floor(Date.now() / DAY) * DAY - 2.5 * DAY;
const isoTime = (ms: number): string => new Date(ms).toISOString();

let test: TestDatabase;
let acme: TestOrganization;
let deviceId: number;
let metricId: number;
beforeAll(async () => {
  test = await createTestDatabase();
  acme = await createOrganization(test.database, 'acme');
  const { author } = acme;
  ({ deviceId } = await createTestRegistry(test.database).devices.create(author, { slug: 'd' }));
  metricId = await ensureMetric(test.database, author.organizationId, 'temp');
  await ensureDays(
    test.database,
    isoTime(NOON - 5 * DAY).slice(0, 10),
    isoTime(NOON + 4 * DAY).slice(0, 10),
  );
});
afterAll(() => test.drop());

const insert = (timeMs: number, value: number): Promise<void> =>
  insertReading(test.database, { deviceId, metricId, time: isoTime(timeMs), value });

async function note(timeMs: number): Promise<void> {
  await test.database.pool.query(
    `INSERT INTO dirty_range (device_id, hour) VALUES ($1, date_trunc('hour', $2::timestamptz, 'UTC'))`,
    [deviceId, isoTime(timeMs)],
  );
}

async function sumOfHour(timeMs: number): Promise<number | undefined> {
  const { rows } = await test.database.pool.query<{ sum: number }>(
    `SELECT sum FROM reading_1h WHERE device_id = $1 AND bucket = $2::timestamptz`,
    [deviceId, isoTime(timeMs)],
  );
  return rows[0]?.sum;
}

describe('a refresh', () => {
  it('materialises what ended so long ago that nothing comes unnoted any more, and no more', async () => {
    const clock = NOON + 30_000;
    const aggregates = createTestAggregates(test.database, { clock: () => clock });
    expect(aggregates.findWatermark()).toBe(-Infinity);
    await insert(NOON - HOUR, 1);
    await aggregates.run('refresh');
    const target = Math.floor((clock - TEST_MARGIN_MS) / MINUTE) * MINUTE;
    expect(aggregates.findWatermark()).toBe(target * 1000);
    await aggregates.stop();
  });

  it('never takes the watermark back when the clock is set back, and loses nothing then (N-16)', async () => {
    const told: number[] = [];
    const aggregates = createTestAggregates(test.database, {
      clock: () => NOON - HOUR,
      onWatermark: (micros) => void told.push(micros),
    });
    await aggregates.run('refresh');
    const watermark = aggregates.findWatermark() / 1000;
    expect(watermark).toBeGreaterThan(NOON - 5 * MINUTE);
    expect(told).toEqual([watermark * 1000]);
    // Received now, by a clock that is an hour back: before the watermark, and so noted.
    await insert(NOON - HOUR + 1000, 10);
    await note(NOON - HOUR);
    await aggregates.run('refresh');
    expect(await sumOfHour(NOON - HOUR)).toBe(11);
    await aggregates.stop();
  });

  it('catches up after a long stop in steps, each with its own watermark', async () => {
    let clock = NOON;
    const aggregates = createTestAggregates(test.database, { clock: () => clock });
    const before = aggregates.findWatermark();
    for (let hour = 0; hour < 30; hour += 1) await insert(NOON + hour * HOUR + 5 * MINUTE, hour);
    clock = NOON + 30 * HOUR;
    await aggregates.run('refresh');
    expect(aggregates.findWatermark()).toBeGreaterThan(before);
    expect(aggregates.findWatermark() / 1000).toBe(
      Math.floor((clock - TEST_MARGIN_MS) / MINUTE) * MINUTE,
    );
    for (const hour of [0, 12, 28, 29]) expect(await sumOfHour(NOON + hour * HOUR)).toBe(hour);
    await aggregates.stop();
  });

  it('misses no late row that is committed while it runs', async () => {
    const writer = new pg.Client({ connectionString: test.url });
    await writer.connect();
    const aggregates = createTestAggregates(test.database, { clock: () => NOON + 30 * HOUR });
    await insert(NOON + 2 * HOUR + MINUTE, 100);
    await note(NOON + 2 * HOUR);
    await writer.query('BEGIN');
    await writer.query(
      'INSERT INTO reading VALUES ($1::timestamptz, $2, $3, 1000, NULL, now(), 0)',
      [isoTime(NOON + 2 * HOUR + 2 * MINUTE), deviceId, metricId],
    );
    await writer.query('INSERT INTO dirty_range (device_id, hour) VALUES ($1, $2::timestamptz)', [
      deviceId,
      isoTime(NOON + 2 * HOUR),
    ]);
    // A note of the same hour is there, and this one is not seen yet.
    await aggregates.run('refresh');
    expect(await sumOfHour(NOON + 2 * HOUR)).toBe(102);
    await writer.query('COMMIT');
    await writer.end();
    await aggregates.run('refresh');
    expect(await sumOfHour(NOON + 2 * HOUR)).toBe(1102);
    await aggregates.stop();
  });

  it('is done by one node at a time, and by another when that one is gone (R-07, R-08)', async () => {
    const holder = new pg.Client({ connectionString: test.url });
    holder.on('error', () => undefined);
    await holder.connect();
    await holder.query(`SELECT pg_advisory_lock(hashtextextended('puback aggregates refresh', 0))`);
    const aggregates = createTestAggregates(test.database, { clock: () => NOON + 32 * HOUR });
    expect(await aggregates.run('refresh')).toBe(false);
    // It knows all the same what the other has done.
    expect(aggregates.findWatermark()).toBeGreaterThan(0);
    const watermark = aggregates.findWatermark();
    await holder.end();
    expect(await aggregates.run('refresh')).toBe(true);
    expect(aggregates.findWatermark()).toBeGreaterThan(watermark);
    await aggregates.stop();
  });
});

describe('aggregates', () => {
  it('go with their device', async () => {
    const devices = createTestRegistry(test.database).devices;
    const gone = await devices.create(acme.author, { slug: 'gone' });
    const row = { deviceId: gone.deviceId, metricId, time: isoTime(NOON), value: 1 };
    await insertReading(test.database, row);
    await test.database.pool.query(
      'INSERT INTO dirty_range (device_id, hour) VALUES ($1, $2::timestamptz)',
      [gone.deviceId, isoTime(NOON)],
    );
    const aggregates = createTestAggregates(test.database, { clock: () => NOON + 33 * HOUR });
    await aggregates.run('refresh');
    const count = async (): Promise<unknown> => {
      const { rows } = await test.database.pool.query<{ found: number }>(
        `SELECT (SELECT count(*) FROM reading_1m WHERE device_id = $1)::int4
              + (SELECT count(*) FROM reading_1h WHERE device_id = $1)::int4
              + (SELECT count(*) FROM reading_1d WHERE device_id = $1)::int4 AS found`,
        [gone.deviceId],
      );
      return rows[0]?.found;
    };
    expect(await count()).toBe(3);
    await devices.remove(acme.author, 'gone');
    expect(await count()).toBe(0);
    await aggregates.stop();
  });

  it('say in their metrics and in health how they are', async () => {
    const metricsRegistry = new MetricsRegistry();
    const clock = Date.now;
    const aggregates = createTestAggregates(test.database, { metricsRegistry, clock });
    await aggregates.run('refresh');
    expect(aggregates.healthDetail()).toEqual({ isOk: true, detail: null });
    await note(NOON);
    await aggregates.run('retention');
    const text = await metricsRegistry.metrics();
    expect(text).toMatch(/^puback_aggregates_success_age_seconds\{job="refresh"\} [\d.]+$/m);
    expect(text).toMatch(/^puback_aggregates_watermark_lag_seconds\{level="1m"\} [\d.]+$/m);
    expect(text).toMatch(/^puback_aggregates_dirty_ranges 1$/m);
    expect(text).toMatch(/^puback_aggregates_failures_total\{job="refresh"\} 0$/m);
    await aggregates.stop();
  });

  it('say so when a job fails, and go on when it works again', async () => {
    const { pool } = test.database;
    const aggregates = createTestAggregates(test.database);
    await pool.query('ALTER TABLE aggregate_watermark RENAME TO hidden');
    await expect(aggregates.run('refresh')).rejects.toThrow('aggregate_watermark');
    expect(aggregates.healthDetail()).toMatchObject({ isOk: false });
    await pool.query('ALTER TABLE hidden RENAME TO aggregate_watermark');
    await aggregates.run('refresh');
    expect(aggregates.healthDetail()).toEqual({ isOk: true, detail: null });
    await aggregates.stop();
  });

  it('leave out what the database cannot compute with, say so, and hold up nobody else', async ({
    skip,
  }) => {
    const { pool, capabilities } = test.database;
    skip(capabilities.continuousAggregates, 'rows of a continuous aggregate cannot be made up');
    const lines: string[] = [];
    const metricsRegistry = new MetricsRegistry();
    const log = pino({ level: 'warn' }, { write: (line) => void lines.push(line) });
    const hour = NOON - 2 * DAY;
    await pool.query('UPDATE aggregate_watermark SET watermark = $1::timestamptz', [isoTime(hour)]);
    const deps = { clock: () => hour + 3 * HOUR, log, metricsRegistry };
    const aggregates = createTestAggregates(test.database, deps);
    const other = await createTestRegistry(test.database).devices.create(acme.author, {
      slug: 'other',
    });
    for (const at of [hour + MINUTE, hour + 2 * MINUTE, hour + HOUR]) {
      await insert(at, 1);
      const row = { deviceId: other.deviceId, metricId, time: isoTime(at), value: 2 };
      await insertReading(test.database, row);
    }
    // As soon as minutes are made, they are more than an hour can add up.
    await pool.query(`
      CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN NEW.sum := 1.7e308; RETURN NEW; END $$;
      CREATE TRIGGER spoil BEFORE INSERT ON rollup_1m FOR EACH ROW
        WHEN (NEW.device_id = ${deviceId}) EXECUTE FUNCTION spoil()`);
    await aggregates.run('refresh');
    expect(aggregates.findWatermark() / 1000).toBeGreaterThan(hour + 2 * HOUR);
    const sums = async (): Promise<unknown[]> => {
      const { rows } = await pool.query<{ device_id: number; sum: number }>(
        `SELECT device_id, sum FROM reading_1h WHERE bucket = $1::timestamptz ORDER BY 1`,
        [isoTime(hour)],
      );
      return rows;
    };
    expect(await sums()).toEqual([{ device_id: other.deviceId, sum: 4 }]);
    expect(aggregates.healthDetail().detail).toContain('1 hours of devices are left out');
    expect(lines.filter((line) => line.includes('left out'))).toHaveLength(1);
    expect(lines.join('')).toContain('value out of range: overflow');
    const text = await metricsRegistry.metrics();
    expect(text).toMatch(/^puback_aggregates_skipped_spans_total 1$/m);

    // A late row for it: left out again, and the notes do not wait.
    await note(hour);
    await aggregates.run('refresh');
    expect(await metricsRegistry.metrics()).toMatch(/^puback_aggregates_dirty_ranges 0$/m);
    expect(lines.filter((line) => line.includes('left out'))).toHaveLength(1);

    // Mended, as the doctor says.
    await pool.query('DROP TRIGGER spoil ON rollup_1m; DROP FUNCTION spoil');
    await pool.query(
      'INSERT INTO dirty_range (device_id, hour) SELECT device_id, hour FROM aggregate_skip',
    );
    await aggregates.run('refresh');
    expect(await sums()).toEqual([
      { device_id: deviceId, sum: 2 },
      { device_id: other.deviceId, sum: 4 },
    ]);
    expect(aggregates.healthDetail().detail ?? '').not.toContain('left out');
    await aggregates.stop();
  });

  it('run by themselves once they are started, and end when they are stopped', async () => {
    // At the start nothing is known; a run tells how far it has come.
    await new Promise<void>((resolve, reject) => {
      const aggregates = createTestAggregates(test.database, {
        onWatermark(micros) {
          if (micros / 1000 < Date.now() - 10 * MINUTE) return;
          aggregates.stop().then(resolve, reject);
        },
      });
      aggregates.start().catch(reject);
    });
  });
});

describe('jobs of the database', () => {
  it('are run by us when their scheduler has not for twice their interval', async ({ skip }) => {
    skip(!test.database.capabilities.columnstore, 'there is no scheduler');
    const client = new pg.Client({ connectionString: test.url });
    await client.connect();
    let clock = Date.now();
    const jobs = new DatabaseJobs(() => clock);
    expect((await jobs.run(client)).forced).toBe(0);
    clock += 3 * DAY;
    expect((await jobs.run(client)).forced).toBe(1);
    await client.end();
  });
});

describe('windows of late rows', () => {
  it('join hours that follow each other, up to a day', () => {
    const hours = [0, 1, 2, 5, ...Array.from({ length: 30 }, (_, index) => 10 + index)];
    expect(windowsOf(hours.map((hour) => hour * HOUR))).toEqual([
      { fromMs: 0, toMs: 3 * HOUR },
      { fromMs: 5 * HOUR, toMs: 6 * HOUR },
      { fromMs: 10 * HOUR, toMs: 34 * HOUR },
      { fromMs: 34 * HOUR, toMs: 40 * HOUR },
    ]);
  });
});

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { RetentionDays } from '../../drizzle/retention.ts';
import type { AggregateJob } from '../../ingest/aggregates/aggregates.ts';
import { createTestAggregates, RETENTION_BOUNDS } from '../support/aggregates.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { ensureDays, ensureMetric, insertReading } from '../support/readings.ts';
import { createOrganization, createTestRegistry } from '../support/registry.ts';

const MINUTE = 60_000;
const HOUR = 3_600_000;
const DAY = 86_400_000;
const MIDNIGHT = Math.floor(Date.now() / DAY) * DAY;
/** Noon of a day that is kept until somebody asks for less. */
const LATE = MIDNIGHT - 20 * DAY + 12 * HOUR;
const isoTime = (ms: number): string => new Date(ms).toISOString();

interface Owner {
  readonly organizationId: number;
  readonly deviceId: number;
  readonly metricId: number;
}

let test: TestDatabase;
let acme: Owner;
let other: Owner;
beforeAll(async () => {
  test = await createTestDatabase();
  acme = await createOwner('acme');
  other = await createOwner('other');
});
afterAll(() => test.drop());
beforeEach(async () => {
  const { pool } = test.database;
  await pool.query('TRUNCATE reading, retention, raw_deletion, dirty_range, device_latest');
  const { rows } = await pool.query<{ relation: string }>(
    'SELECT relation::text FROM rollup_tables()',
  );
  for (const { relation } of rows) await pool.query(`DELETE FROM ${relation}`);
  await pool.query(`UPDATE aggregate_watermark SET watermark = '-infinity'`);
  const isoDay = isoTime(LATE).slice(0, 10);
  await ensureDays(test.database, isoDay, isoDay);
  await ensureDays(
    test.database,
    isoTime(MIDNIGHT - 16 * DAY).slice(0, 10),
    isoTime(MIDNIGHT - 9 * DAY).slice(0, 10),
  );
  // On time, in the hours before the late ones and of days that stay.
  for (const owner of [acme, other]) {
    await insert(owner, LATE - 2 * HOUR, 4);
    await insert(owner, MIDNIGHT - 9 * DAY, 5);
  }
  await run('refresh');
});

async function createOwner(slug: string): Promise<Owner> {
  const { author } = await createOrganization(test.database, slug);
  const { organizationId } = author;
  const { deviceId } = await createTestRegistry(test.database).devices.create(author, { slug });
  const metricId = await ensureMetric(test.database, organizationId, 'temp');
  return { organizationId, deviceId, metricId };
}

function insert({ deviceId, metricId }: Owner, timeMs: number, value: number): Promise<void> {
  return insertReading(test.database, { deviceId, metricId, time: isoTime(timeMs), value });
}

async function note({ deviceId }: Owner, timeMs: number): Promise<void> {
  await test.database.pool.query(
    `INSERT INTO dirty_range (device_id, hour) VALUES ($1, date_trunc('hour', $2::timestamptz, 'UTC'))`,
    [deviceId, isoTime(timeMs)],
  );
}

/** Three readings of two minutes, as the writer stores what comes late. */
async function insertLate(owner: Owner): Promise<void> {
  await insert(owner, LATE, 1);
  await insert(owner, LATE + 1000, 2);
  await insert(owner, LATE + MINUTE, 3);
  await note(owner, LATE);
}

async function askForRaw({ organizationId }: Owner, days: number): Promise<void> {
  await test.database.pool.query(
    `INSERT INTO retention VALUES ($1, 'raw', $2)
     ON CONFLICT (organization_id, class) DO UPDATE SET days = excluded.days`,
    [organizationId, days],
  );
}

async function run(job: AggregateJob, max: RetentionDays = RETENTION_BOUNDS.max): Promise<void> {
  const limits = { databaseTimeoutMs: 1000, retention: { ...RETENTION_BOUNDS, max } };
  const aggregates = createTestAggregates(test.database, { limits });
  try {
    await aggregates.run(job);
  } finally {
    await aggregates.stop();
  }
}

/** Readings of the day of the late ones that are there, raw and counted in each level. */
async function countOf({ deviceId }: Owner, dayMs = LATE): Promise<Record<string, number>> {
  const counted = ['1m', '1h', '1d'].map(
    (level) =>
      `(SELECT coalesce(sum(count), 0)::int4 FROM reading_${level}
        WHERE device_id = $1 AND bucket >= $2 AND bucket < $3) AS "${level}"`,
  );
  const { rows } = await test.database.pool.query<Record<string, number>>(
    `SELECT (SELECT count(*)::int4 FROM reading
             WHERE device_id = $1 AND time >= $2 AND time < $3) AS raw, ${counted.join(', ')}`,
    [
      deviceId,
      isoTime(Math.floor(dayMs / DAY) * DAY),
      isoTime(Math.floor(dayMs / DAY) * DAY + DAY),
    ],
  );
  return rows[0] ?? {};
}

async function notes(): Promise<number> {
  return (await test.database.pool.query('SELECT FROM dirty_range')).rowCount ?? 0;
}

describe('late rows that are noted when an organization asks for less', () => {
  it.each([
    { first: 'retention', order: ['retention', 'refresh', 'retention'] as const },
    { first: 'refresh', order: ['refresh', 'retention'] as const },
  ])('are in every aggregate before they are deleted, with $first first', async ({ order }) => {
    await insertLate(acme);
    await insertLate(other);
    await askForRaw(acme, 12);
    for (const job of order) await run(job);
    expect(await countOf(acme)).toEqual({ raw: 0, '1m': 4, '1h': 4, '1d': 4 });
    expect(await countOf(other)).toEqual({ raw: 4, '1m': 4, '1h': 4, '1d': 4 });
    expect(await notes()).toBe(0);
  });

  it('keep their readings for as long as the refresh fails', async () => {
    await insertLate(acme);
    await askForRaw(acme, 12);
    const { pool } = test.database;
    await pool.query(
      `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''refused''; END';
       CREATE TRIGGER refusal BEFORE DELETE ON dirty_range EXECUTE FUNCTION refuse()`,
    );
    await expect(run('refresh')).rejects.toThrow('refused');
    await run('retention');
    expect((await countOf(acme))['raw']).toBe(4);
    await pool.query('DROP TRIGGER refusal ON dirty_range');
    await run('refresh');
    await run('retention');
    expect(await countOf(acme)).toEqual({ raw: 0, '1m': 4, '1h': 4, '1d': 4 });
  });

  it('hold up the deletion of no other organization', async ({ skip }) => {
    skip(test.database.capabilities.continuousAggregates, 'a refresh there is of all devices');
    await insertLate(other);
    await askForRaw(acme, 12);
    await run('retention');
    expect((await countOf(acme))['raw']).toBe(0);
    expect((await countOf(other))['raw']).toBe(4);
  });
});

describe('late rows that are noted when a setting is lower at a start', () => {
  it.each([
    { first: 'retention', order: ['retention', 'refresh', 'retention'] as const },
    { first: 'refresh', order: ['refresh', 'retention'] as const },
  ])('are in what stays, with $first first', async ({ order }) => {
    await insertLate(acme);
    // Finer aggregates go with the readings: the day is made of what is left of its hours.
    for (const job of order) await run(job, { raw: 12, '1m': 12, '1h': 12, '1d': 3650 });
    expect(await countOf(acme)).toMatchObject({ raw: 0, '1d': 4 });
    expect(await countOf(other)).toMatchObject({ raw: 0, '1d': 1 });
    expect(await notes()).toBe(0);
  });
});

describe('what was deleted', () => {
  beforeEach(async () => {
    await insert(acme, MIDNIGHT - 11.5 * DAY, 6);
    await note(acme, MIDNIGHT - 11.5 * DAY);
    await run('refresh');
    await askForRaw(acme, 13);
    await run('retention');
  });

  it('is not made anew when the retention is longer again', async () => {
    expect(await countOf(acme)).toEqual({ raw: 0, '1m': 1, '1h': 1, '1d': 1 });
    await askForRaw(acme, 30);
    await insert(acme, LATE - 2 * HOUR + 1, 7);
    await insert(acme, LATE - 2 * HOUR + 2, 8);
    await note(acme, LATE - 2 * HOUR);
    await run('refresh');
    expect(await countOf(acme)).toEqual({ raw: 2, '1m': 1, '1h': 1, '1d': 1 });
    expect(await notes()).toBe(0);
  });

  it('holds nothing up with the notes that still come for it', async () => {
    await note(acme, LATE);
    await askForRaw(acme, 10);
    await run('retention');
    expect(await countOf(acme, MIDNIGHT - 11.5 * DAY)).toEqual({
      raw: 0,
      '1m': 1,
      '1h': 1,
      '1d': 1,
    });
  });
});

describe('a deletion and a refresh of late rows', () => {
  it('wait for each other, so that neither goes by what the other is changing', async () => {
    await insertLate(acme);
    await askForRaw(acme, 12);
    const holder = await test.database.pool.connect();
    const key = `hashtextextended('puback aggregates raw deletion', 0)`;
    try {
      await holder.query(`SELECT pg_advisory_lock(${key})`);
      let isDone = false;
      const running = run('refresh').finally(() => (isDone = true));
      const waiting = `SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`;
      await expect.poll(async () => (await holder.query(waiting)).rowCount).toBeGreaterThan(0);
      expect(isDone).toBe(false);
      expect(await notes()).toBe(1);
      await holder.query(`SELECT pg_advisory_unlock(${key})`);
      await running;
      expect(await notes()).toBe(0);
    } finally {
      holder.release();
    }
  });
});

import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LEVELS, floorTo, type LevelName } from '../../ingest/aggregates/levels.ts';
import { createTestAggregates } from '../support/aggregates.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { ensureDays, ensureMetric } from '../support/readings.ts';
import { createOrganization, createTestRegistry } from '../support/registry.ts';

const MINUTE = 60_000;
const HOUR = 3_600_000;
const DAY = 86_400_000;
/** Midnight two days ago: all that the tests do is before now. */
const START = floorTo(Date.now(), DAY) - 3 * DAY;
const RUNS = 25;
/** What passes in one run at most, so that all of them are before {@link START}. */
const RUN_MS_MAX = 2 * DAY;

let test: TestDatabase;
let organizationId: number;
beforeAll(async () => {
  test = await createTestDatabase();
  const { author } = await createOrganization(test.database, 'acme');
  ({ organizationId } = author);
  const isoDay = (ms: number): string => new Date(ms).toISOString().slice(0, 10);
  await ensureDays(
    test.database,
    isoDay(START - RUNS * RUN_MS_MAX - 3 * DAY),
    isoDay(START + 4 * DAY),
  );
});
afterAll(() => test.drop());

let made = 0;
async function createDevice(): Promise<{ deviceId: number; slug: string }> {
  made += 1;
  const author = { organizationId, actor: 'test' };
  return createTestRegistry(test.database).devices.create(author, { slug: `d${made}` });
}

interface Row {
  readonly deviceId: number;
  readonly metricId: number;
  readonly timeMs: number;
  readonly value: number | null;
}

/** Stores rows as the writer does: the first one of a key stays, and late ones are noted. */
async function store(rows: readonly Row[], noteBeforeMs: number): Promise<void> {
  const client = await test.database.pool.connect();
  try {
    await client.query('BEGIN');
    for (const { deviceId, metricId, timeMs, value } of rows) {
      const time = new Date(timeMs).toISOString();
      const text = value === null ? 'text' : null;
      await client.query(
        `INSERT INTO reading VALUES ($1::timestamptz, $2, $3, $4, $5, now(), 0) ON CONFLICT DO NOTHING`,
        [time, deviceId, metricId, value, text],
      );
      await client.query(
        `INSERT INTO device_latest VALUES ($1, $2, $3::timestamptz, $4, $5, now(), 0)
         ON CONFLICT (device_id, metric_id) DO UPDATE SET time = excluded.time
         WHERE device_latest.time < excluded.time`,
        [deviceId, metricId, time, value, text],
      );
      if (timeMs >= noteBeforeMs) continue;
      await client.query(
        `INSERT INTO dirty_range (device_id, hour) VALUES ($1, date_trunc('hour', $2::timestamptz, 'UTC'))`,
        [deviceId, time],
      );
    }
    await client.query('COMMIT');
  } finally {
    client.release();
  }
}

interface Bucket {
  readonly timeMs: number;
  readonly device: string;
  readonly count: number;
  readonly figures: readonly number[];
}

async function readView(level: LevelName, slugs: readonly string[]): Promise<Bucket[]> {
  const { rows } = await test.database.pool.query<{
    time: Date;
    device: string;
    count: string;
    sum: number;
    min: number;
    max: number;
    first: number;
    last: number;
    avg: number;
  }>(`SELECT * FROM v_reading_${level} WHERE device = ANY($1) ORDER BY device, metric, time`, [
    slugs,
  ]);
  return rows.map(({ time, device, count, sum, min, max, first, last, avg }) => ({
    timeMs: time.getTime(),
    device,
    count: Number(count),
    figures: [sum, min, max, first, last, avg],
  }));
}

/** The same from raw readings, by other means. */
async function aggregateRaw(level: LevelName, slugs: readonly string[]): Promise<Bucket[]> {
  const { rows } = await test.database.pool.query<{
    time: Date;
    device: string;
    metric: string;
    value: number;
  }>(
    `SELECT time, device, metric, value FROM v_reading
     WHERE device = ANY($1) AND value IS NOT NULL ORDER BY device, metric, time`,
    [slugs],
  );
  const width = LEVELS.find(({ name }) => name === level)?.widthMs ?? NaN;
  const buckets = new Map<string, { timeMs: number; device: string; values: number[] }>();
  for (const { time, device, metric, value } of rows) {
    const timeMs = floorTo(time.getTime(), width);
    const key = `${device} ${metric} ${timeMs}`;
    const bucket = buckets.get(key) ?? { timeMs, device, values: [] };
    bucket.values.push(value);
    buckets.set(key, bucket);
  }
  return [...buckets.values()].map(({ timeMs, device, values }) => {
    const sum = values.reduce((total, value) => total + value, 0);
    const [first = NaN, last = NaN] = [values[0], values.at(-1)];
    const figures = [
      sum,
      Math.min(...values),
      Math.max(...values),
      first,
      last,
      sum / values.length,
    ];
    return { timeMs, device, count: values.length, figures };
  });
}

/** Counts and times exactly; sums of doubles may be added in another order. */
function expectEqual(found: readonly Bucket[], raw: readonly Bucket[]): void {
  const keyed = (all: readonly Bucket[]) =>
    all.map(({ timeMs, device, count }) => ({ timeMs, device, count }));
  expect(keyed(found)).toEqual(keyed(raw));
  for (const [index, { figures }] of found.entries()) {
    for (const [place, figure] of figures.entries()) {
      const expected = raw[index]?.figures[place] ?? NaN;
      const isClose = Math.abs(figure - expected) <= 1e-9 * Math.max(1, Math.abs(expected));
      expect(isClose, `${figure} and ${expected}`).toBe(true);
    }
  }
}

async function expectViewsEqualRaw(slugs: readonly string[]): Promise<void> {
  for (const { name } of LEVELS) {
    expectEqual(await readView(name, slugs), await aggregateRaw(name, slugs));
  }
}

describe('aggregates', () => {
  it('equal what raw readings say, whatever comes late, twice or out of order, whenever they are refreshed', async () => {
    const metricIds = await Promise.all(
      ['temp', 'rh'].map((name) => ensureMetric(test.database, organizationId, name)),
    );
    // The clock of each run goes on from where the last one ended: watermarks never go back.
    let base = START - RUNS * RUN_MS_MAX;
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.oneof(
            {
              weight: 5,
              arbitrary: fc.record({
                kind: fc.constant('store' as const),
                rows: fc.array(
                  fc.record({
                    device: fc.nat(2),
                    metric: fc.nat(1),
                    ageMs: fc.oneof(fc.nat(5 * MINUTE), fc.nat(3 * HOUR), fc.nat(2 * DAY)),
                    value: fc.option(
                      fc.oneof(
                        fc.integer({ min: -1000, max: 1000 }),
                        fc.double({ min: -1e6, max: 1e6, noNaN: true }),
                      ),
                      { freq: 10 },
                    ),
                  }),
                  { minLength: 1, maxLength: 12 },
                ),
              }),
            },
            { weight: 2, arbitrary: fc.constant({ kind: 'refresh' as const }) },
            {
              weight: 3,
              arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.nat(8 * HOUR) }),
            },
          ),
          { minLength: 4, maxLength: 25 },
        ),
        async (steps) => {
          const devices = [await createDevice(), await createDevice(), await createDevice()];
          const slugs = devices.map(({ slug }) => slug);
          let now = base;
          const aggregates = createTestAggregates(test.database, { clock: () => now });
          await aggregates.run('refresh');
          let isNoted = false;
          for (const step of steps) {
            if (step.kind === 'pass') now = Math.min(now + step.ms, base + RUN_MS_MAX);
            if (step.kind === 'refresh') {
              await aggregates.run('refresh');
              isNoted = false;
              await expectViewsEqualRaw(slugs);
            }
            if (step.kind !== 'store') continue;
            const rows = step.rows.map(({ device, metric, ageMs, value }) => ({
              deviceId: devices[device]?.deviceId ?? 0,
              metricId: metricIds[metric] ?? 0,
              timeMs: now - ageMs,
              value,
            }));
            const noteBeforeMs = Math.max(now - MINUTE, aggregates.findWatermark() / 1000);
            isNoted ||= rows.some(({ timeMs }) => timeMs < noteBeforeMs);
            await store(rows, noteBeforeMs);
            // Late rows are seen after the next refresh; all others at once.
            if (!isNoted) await expectViewsEqualRaw(slugs);
          }
          await aggregates.run('refresh');
          await expectViewsEqualRaw(slugs);
          expect(await countNotes()).toBe(0);
          base = now;
          await aggregates.stop();
        },
      ),
      { numRuns: RUNS, endOnFailure: true },
    );
  }, 120_000);
});

describe('values that no device can send, stored by other means', () => {
  const odd = [1e308, 1e308, Infinity, -Infinity, NaN, 1.1e290, -1e308];

  it('are left out of all aggregates, as they are made and as they are read, and break nothing', async () => {
    const { deviceId, slug } = await createDevice();
    const metricId = await ensureMetric(test.database, organizationId, 'odd');
    let now = START + 2 * DAY;
    const hour = now - 5 * HOUR;
    const values = [...odd, 1, 1e290, -1e290, 2];
    const row = { deviceId, metricId };
    const rows = (atMs: number) =>
      values.map((value, index) => ({ ...row, timeMs: atMs + index, value }));
    const tiny = [5e-324, 0].map((value, index) => ({
      ...row,
      timeMs: hour + HOUR + index,
      value,
    }));
    await store([...rows(hour), ...tiny], -Infinity);
    const expected = [
      { timeMs: hour, device: slug, count: 4, figures: [3, -1e290, 1e290, 1, 2, 0.75] },
      { timeMs: hour + HOUR, device: slug, count: 2, figures: [5e-324, 0, 5e-324, 5e-324, 0, 0] },
    ];
    const last = { timeMs: now, device: slug, count: 4 };
    // Sums of doubles: 1 + 1e290 - 1e290 + 2.
    const figures = [2, -1e290, 1e290, 1, 2, 0.5];
    expected[0] = { ...last, timeMs: hour, figures };
    const aggregates = createTestAggregates(test.database, { clock: () => now });
    expect(await readView('1h', [slug])).toEqual(expected);
    now += HOUR;
    await aggregates.run('refresh');
    expect(await readView('1h', [slug])).toEqual(expected);
    expect(await readView('1m', [slug])).toEqual(expected);
    await store(rows(hour + 2 * HOUR), Infinity);
    await aggregates.run('refresh');
    expect(await readView('1h', [slug])).toEqual([
      ...expected,
      { ...last, timeMs: hour + 2 * HOUR, figures },
    ]);
    const days = await readView('1d', [slug]);
    expect(days.map(({ count }) => count)).toEqual([10]);
    expect(await countNotes()).toBe(0);
    expect(aggregates.healthDetail().detail ?? '').not.toContain('left out');
    await aggregates.stop();
  });
});

async function countNotes(): Promise<number> {
  const { rows } = await test.database.pool.query<{ notes: number }>(
    'SELECT count(*)::int4 AS notes FROM dirty_range',
  );
  return rows[0]?.notes ?? -1;
}

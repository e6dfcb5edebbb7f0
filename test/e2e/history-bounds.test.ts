import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestApp, type TestApp } from '../support/app.ts';
import { ensureDays } from '../support/readings.ts';

const PAGE_ROWS_MAX = 1000;
/** A day at one reading a second, and as many metrics more as a device may have. */
const ROWS = 86_400;
const METRICS = 256;

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp({ PAGE_ROWS_MAX: String(PAGE_ROWS_MAX), DATABASE_TIMEOUT_S: '1' });
  const { database } = app.testDatabase;
  await ensureDays(database, '2026-11-20', '2026-11-20');
  await database.pool.query(
    `INSERT INTO metric (organization_id, name, kind)
     SELECT organization_id, 'm' || n, 'number' FROM device, generate_series(0, $1 - 1) AS n
     WHERE slug = 'first'`,
    [METRICS],
  );
  await database.pool.query(
    `INSERT INTO reading
     SELECT '2026-11-20Z'::timestamptz + second * interval '1 second', device_id, metric_id, second, NULL, now(), 0
     FROM device, metric, generate_series(0, $1 - 1) AS second
     WHERE slug = 'first' AND (name = 'm0' OR second = 0)`,
    [ROWS],
  );
  await database.pool.query(
    `INSERT INTO device_latest
     SELECT device_id, metric_id, max(time), 1, NULL, now(), 0 FROM reading GROUP BY 1, 2`,
  );
  await database.pool.query('ANALYZE reading');
});
afterAll(() => app.stop());

interface Timed {
  readonly status: number;
  readonly body: { data: { value: number }[]; next: string | null; code?: string };
  readonly ms: number;
}

async function ask(query: string): Promise<Timed> {
  const startedAt = performance.now();
  const { status, body } = await app.api('GET', `/api/v1/devices/first/readings?${query}`);
  return { status, body, ms: performance.now() - startedAt };
}

function metricsQuery(count: number): string {
  return Array.from({ length: count }, (_, at) => `metric=m${at}`).join('&');
}

describe('a question for much history', () => {
  it.each([
    ['limit=1000000000'],
    ['limit=1e9'],
    [`limit=${PAGE_ROWS_MAX + 1}`],
    ['limit=-1'],
    ['limit=0'],
    ['limit=NaN'],
    ['limit=Infinity'],
    ['limit=10&limit=20'],
    ['offset=1000000000'],
    ['page=1000000'],
    ['a cursor of 601 characters', `cursor=${'x'.repeat(601)}`],
    ['one metric too many', metricsQuery(METRICS + 1)],
    ['500 metrics', metricsQuery(500)],
  ])('is refused with 400, and not cut in silence: %s (I-20)', async (name, query = name) => {
    const { status, body } = await ask(query);
    expect(status).toBe(400);
    expect(['REQUEST_INVALID', 'CURSOR_INVALID']).toContain(body.code);
  });

  it('of ten years and all metrics gets one page, whose size is bounded, at once (I-20)', async () => {
    for (const query of [
      'from=2016-11-21&to=2026-11-21',
      `from=2016-11-21&to=2026-11-21&limit=${PAGE_ROWS_MAX}&order=asc`,
      `from=0&to=${9e14}&limit=${PAGE_ROWS_MAX}`,
      metricsQuery(METRICS),
    ]) {
      const { status, body, ms } = await ask(query);
      expect(status, query).toBe(200);
      expect(body.data, query).toHaveLength(PAGE_ROWS_MAX);
      expect(body.next, query).not.toBeNull();
      expect(ms, query).toBeLessThan(1000);
    }
  });

  it('is read whole page by page, each as quick as the first, with flat memory (I-20)', async () => {
    const times: number[] = [];
    let cursor = '';
    let expected = 0;
    let heapMax = 0;
    globalThis.gc?.();
    const before = process.memoryUsage().heapUsed;
    do {
      const { body, ms } = await ask(`metric=m0&order=asc&limit=${PAGE_ROWS_MAX}${cursor}`);
      times.push(ms);
      for (const { value } of body.data) {
        if (value !== expected) throw new Error(`${value} where ${expected} should be`);
        expected += 1;
      }
      heapMax = Math.max(heapMax, process.memoryUsage().heapUsed);
      cursor = body.next === null ? '' : `&cursor=${body.next}`;
    } while (cursor !== '');
    expect(expected).toBe(ROWS);
    const mean = (of: readonly number[]) => of.reduce((sum, ms) => sum + ms, 0) / of.length;
    expect(mean(times.slice(-20))).toBeLessThan(5 * mean(times.slice(0, 20)) + 20);
    expect(heapMax - before).toBeLessThan(100 * 1_048_576);
  });

  it('that takes longer than DATABASE_TIMEOUT_S is ended by the database, with 503 (I-20)', async () => {
    const blocker = new pg.Client({ connectionString: app.testDatabase.url });
    await blocker.connect();
    try {
      await blocker.query('BEGIN');
      await blocker.query('LOCK TABLE reading IN ACCESS EXCLUSIVE MODE');
      const answers = await Promise.all([ask('limit=1'), ask('metric=m1'), ask('order=asc')]);
      for (const { status, body, ms } of answers) {
        expect({ status, code: body.code }).toEqual({ status: 503, code: 'STORE_UNAVAILABLE' });
        expect(ms).toBeLessThan(4000);
      }
      const { rows } = await blocker.query<{ count: number }>(
        `SELECT count(*)::int4 AS count FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'`,
      );
      expect(rows).toEqual([{ count: 0 }]);
    } finally {
      await blocker.end();
    }
    expect((await ask('limit=1')).status).toBe(200);
  });

  it('by many at once lets a small question through within a second (I-20)', async () => {
    const many = Array.from({ length: 24 }, () => ask(`limit=${PAGE_ROWS_MAX}&order=asc`));
    const small = await ask('limit=1&metric=m1');
    expect(small.status).toBe(200);
    expect(small.ms).toBeLessThan(1000);
    for (const { status } of await Promise.all(many)) expect(status).toBe(200);
  });
});

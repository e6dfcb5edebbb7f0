import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inOrganization } from '../../drizzle/transaction.ts';
import { readingsStatement } from '../../ingest/history.ts';
import type { SeriesPageQuery } from '../../ingest/series-page.ts';
import type { Author } from '../../registry/devices.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { ensureDays, ensureMetric } from '../support/readings.ts';
import { createOrganization, createTestRegistry } from '../support/registry.ts';

const METRICS = 5;
const DAYS = 20;

let test: TestDatabase;
let author: Author;
let deviceId: number;
beforeAll(async () => {
  test = await createTestDatabase();
  const { database } = test;
  ({ author } = await createOrganization(database, 'acme'));
  ({ deviceId } = await createTestRegistry(database).devices.create(author, { slug: 'd' }));
  await ensureDays(database, '2026-11-01', '2026-11-20');
  for (let at = 0; at < METRICS; at += 1) {
    await ensureMetric(database, author.organizationId, `m${at}`);
  }
  // 400 000 rows of two devices: one value a minute of one metric, one each ten minutes of the others.
  await database.pool.query(
    `INSERT INTO reading
     SELECT time, device, metric_id, 1, NULL, time, 0
     FROM generate_series('2026-11-01Z'::timestamptz, '2026-11-20 23:59Z', '30 seconds') AS time,
          generate_series($1::int4, $1::int4 + 1) AS device, metric
     WHERE name <> 'm4' OR extract(minute FROM time) = 0`,
    [deviceId],
  );
  await database.pool.query(
    `INSERT INTO device_latest
     SELECT device_id, metric_id, max(time), 1, NULL, now(), 0 FROM reading GROUP BY 1, 2`,
  );
  await database.pool.query('ANALYZE');
});
afterAll(() => test.drop());

interface Plan {
  'Node Type': string;
  'Relation Name'?: string;
  'Actual Rows': number;
  'Actual Loops': number;
  'Rows Removed by Filter'?: number;
  Plans?: Plan[];
}

/** Runs the statement of a page. @returns rows it read, and partitions it looked at. */
async function explain(query: Partial<SeriesPageQuery>): Promise<{ rows: number; tables: number }> {
  const { text, values } = readingsStatement({
    organizationId: author.organizationId,
    deviceId,
    metrics: null,
    fromMicros: null,
    toMicros: null,
    order: 'desc',
    limit: 100,
    after: null,
    ...query,
  });
  const result = await inOrganization(test.database, author.organizationId, ({ client }) =>
    client.query<{ 'QUERY PLAN': [{ Plan: Plan }] }>(
      `EXPLAIN (ANALYZE, FORMAT JSON) ${text}`,
      values,
    ),
  );
  const plan = result.rows[0]?.['QUERY PLAN'][0].Plan;
  if (plan === undefined) throw new Error('no plan');
  const scans = scansOf(plan);
  expect(scans.map((scan) => scan['Node Type'])).not.toContain('Seq Scan');
  const read = scans.map(
    (scan) => (scan['Actual Rows'] + (scan['Rows Removed by Filter'] ?? 0)) * scan['Actual Loops'],
  );
  return { rows: read.reduce((sum, rows) => sum + rows, 0), tables: scans.length };
}

/** Leaves of the plan that read `reading`, whatever its partitions or chunks are called. */
function scansOf(plan: Plan): Plan[] {
  const children = (plan.Plans ?? []).flatMap(scansOf);
  const table = plan['Relation Name'] ?? '';
  const isReading = table.startsWith('reading') || table.startsWith('_hyper');
  return isReading ? [plan, ...children] : children;
}

function micros(text: string): number {
  return Date.parse(text) * 1000;
}

describe('the plan of a page of history', () => {
  it.each(['asc', 'desc'] as const)('reads a page of rows for one metric, %s', async (order) => {
    expect((await explain({ order, metrics: ['m0'] })).rows).toBeLessThanOrEqual(102);
  });

  it.each(['asc', 'desc'] as const)('reads a page of rows a metric for all, %s', async (order) => {
    expect((await explain({ order })).rows).toBeLessThanOrEqual(METRICS * 102);
  });

  it('reads no more for a page far inside the history (I-20)', async () => {
    const after = { timeMicros: micros('2026-11-10T12:00:00Z'), metricId: 3 };
    expect((await explain({ after })).rows).toBeLessThanOrEqual(METRICS * 103);
    expect((await explain({ after, order: 'asc' })).rows).toBeLessThanOrEqual(METRICS * 103);
  });

  it('looks at the partitions of the times asked for and at no others', async () => {
    const day = {
      fromMicros: micros('2026-11-10T06:00:00Z'),
      toMicros: micros('2026-11-11T06:00:00Z'),
    };
    expect((await explain(day)).tables).toBe(2);
    const { tables } = await explain({ ...day, order: 'asc', metrics: ['m0', 'm1'] });
    expect(tables).toBe(2);
    expect(tables).toBeLessThan(DAYS);
  });
});

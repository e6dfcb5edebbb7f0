import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  HISTORY_STATEMENT,
  historyValues,
  type WantedSeries,
} from '../../rules/evaluation/history-rows.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { ensureDays, ensureMetric } from '../support/readings.ts';
import { createOrganization, createTestRegistry } from '../support/registry.ts';

const DAYS = 20;
const SERIES = 20;
const END = Date.parse('2026-11-21T00:00:00Z') * 1000;
const MINUTE = 60_000_000;

let test: TestDatabase;
let deviceId: number;
let metricIds: number[];
beforeAll(async () => {
  test = await createTestDatabase();
  const { database } = test;
  const { author } = await createOrganization(database, 'acme');
  ({ deviceId } = await createTestRegistry(database).devices.create(author, { slug: 'd' }));
  await ensureDays(database, '2026-11-01', '2026-11-20');
  metricIds = [];
  for (let at = 0; at < SERIES; at += 1) {
    metricIds.push(await ensureMetric(database, author.organizationId, `m${at}`));
  }
  // A value a minute of each series: 576 000 rows.
  await database.pool.query(
    `INSERT INTO reading
     SELECT time, $1, metric_id, 1, NULL, time, 0
     FROM generate_series('2026-11-01Z'::timestamptz, '2026-11-20 23:59Z', '1 minute') AS time,
          unnest($2::int4[]) AS metric_id`,
    [deviceId, metricIds],
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

/** Runs the statement for all series, each with a window up to the end. @returns rows read, and how often. */
async function explain(
  windowMicros: number,
  rowsMax: number,
): Promise<{ rows: number; scans: number }> {
  const series = metricIds.map((metricId): WantedSeries => ({
    deviceId,
    metricId,
    metric: '',
    isText: false,
    historyMicros: windowMicros,
    samplesBefore: 1,
    latest: { timeMicros: END - MINUTE, receivedMicros: END - MINUTE, value: 1, text: null },
    beforeMicros: END,
    receivedBeforeMicros: Infinity,
    unevaluatedMicros: Infinity,
  }));
  const { rows } = await test.database.pool.query<{ 'QUERY PLAN': [{ Plan: Plan }] }>(
    `EXPLAIN (ANALYZE, FORMAT JSON) ${HISTORY_STATEMENT}`,
    historyValues(series, { fromMicros: () => END - windowMicros, rowsMax, samplesBefore: 1 }),
  );
  const plan = rows[0]?.['QUERY PLAN'][0].Plan;
  if (plan === undefined) throw new Error('no plan');
  const scans = scansOf(plan).filter((scan) => scan['Actual Loops'] > 0);
  expect(scans.map((scan) => scan['Node Type'])).not.toContain('Seq Scan');
  const read = scans.map(
    (scan) => (scan['Actual Rows'] + (scan['Rows Removed by Filter'] ?? 0)) * scan['Actual Loops'],
  );
  return {
    rows: Math.round(read.reduce((sum, count) => sum + count, 0)),
    scans: scans.reduce((sum, scan) => sum + scan['Actual Loops'], 0),
  };
}

/** Leaves of the plan that read `reading`, whatever its partitions or chunks are called. */
function scansOf(plan: Plan): Plan[] {
  const children = (plan.Plans ?? []).flatMap(scansOf);
  const table = plan['Relation Name'] ?? '';
  const isReading = table.startsWith('reading') || table.startsWith('_hyper');
  return isReading ? [plan, ...children] : children;
}

describe('the plan of loading windows', () => {
  it('reads the rows of the windows, and one before each', async () => {
    const { rows } = await explain(10 * MINUTE, 1000);
    expect(rows).toBeGreaterThanOrEqual(SERIES * 11);
    // Where the walk for the one before goes over partitions, it reads one row of each that it looks at.
    expect(rows).toBeLessThanOrEqual(SERIES * 13);
  });

  it('looks at the partitions of the window and at that of the reading before', async () => {
    const { scans } = await explain(10 * MINUTE, 1000);
    expect(scans).toBeLessThanOrEqual(SERIES * 3);
    expect(scans).toBeLessThan(SERIES * DAYS);
  });

  it('stops at its bound of rows, however long the window is', async () => {
    const { rows } = await explain(DAYS * 1440 * MINUTE, 100);
    expect(rows).toBeLessThanOrEqual(SERIES * 102);
  });
});

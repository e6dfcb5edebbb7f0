import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';

/** What the comparison of the aggregates with the readings they are made of found. */
export interface AggregateResult {
  /** Views that were compared; none before they exist. */
  readonly views: readonly string[];
  readonly buckets: number;
  /** Buckets that differ from the readings, are missing or too many: must be 0. */
  readonly different: number;
  /** Hours that still waited to be refreshed after the longest wait: must be 0. */
  readonly dirtyLeft: number;
  readonly examples: readonly string[];
}

const VIEWS = [
  ['v_reading_1m', '1 minute'],
  ['v_reading_1h', '1 hour'],
  ['v_reading_1d', '1 day'],
] as const;
const REFRESH_MS_MAX = 180_000;
const LOOK_EVERY_MS = 1000;
const EXAMPLES_MAX = 5;

/** Waits until nothing is left to be refreshed, then compares every bucket of every view. */
export async function compareAggregates(client: pg.Client): Promise<AggregateResult> {
  const views: string[] = [];
  const examples: string[] = [];
  let buckets = 0;
  let different = 0;
  const isThere = await hasRelation(client, 'v_reading_1m');
  const dirtyLeft = isThere ? await waitForRefresh(client) : 0;
  for (const [view, width] of VIEWS) {
    if (!(await hasRelation(client, view))) continue;
    views.push(view);
    const found = await compareView(client, view, width);
    buckets += found.buckets;
    different += found.different.length;
    examples.push(...found.different.slice(0, EXAMPLES_MAX - examples.length));
  }
  return { views, buckets, different, dirtyLeft, examples };
}

async function hasRelation(client: pg.Client, name: string): Promise<boolean> {
  const { rows } = await client.query<{ name: string | null }>('SELECT to_regclass($1) AS name', [
    name,
  ]);
  return rows[0]?.name !== null;
}

async function waitForRefresh(client: pg.Client): Promise<number> {
  if (!(await hasRelation(client, 'dirty_range'))) return 0;
  const deadline = performance.now() + REFRESH_MS_MAX;
  for (;;) {
    const { rows } = await client.query<{ left: number }>(
      'SELECT count(*)::int4 AS left FROM dirty_range',
    );
    const left = rows[0]?.left ?? 0;
    if (left === 0 || performance.now() > deadline) return left;
    await delay(LOOK_EVERY_MS);
  }
}

/** Everything is compared exactly but sums, where the order of adding counts. */
async function compareView(
  client: pg.Client,
  view: string,
  width: string,
): Promise<{ buckets: number; different: string[] }> {
  const { rows } = await client.query<{ key: string; is_equal: boolean }>(`
    WITH raw AS (
      SELECT organization, device, metric, date_bin('${width}', time, '2000-01-01Z') AS bucket,
        count(*) AS count, min(value) AS min, max(value) AS max, sum(value) AS sum,
        (array_agg(value ORDER BY time))[1] AS first, (array_agg(value ORDER BY time DESC))[1] AS last
      FROM v_reading WHERE value IS NOT NULL GROUP BY 1, 2, 3, 4
    ), made AS (
      SELECT organization, device, metric, time AS bucket, count, min, max, sum, first, last
      FROM ${view}
    )
    SELECT concat_ws(' ', '${view}', device, metric, bucket, raw.count, made.count) AS key,
      coalesce(ROW(raw.count, raw.min, raw.max, raw.first, raw.last)
          = ROW(made.count, made.min, made.max, made.first, made.last)
        AND abs(raw.sum - made.sum) <= 1e-9 * greatest(1, abs(raw.sum)), false) AS is_equal
    FROM raw FULL JOIN made USING (organization, device, metric, bucket)`);
  const different = rows.filter(({ is_equal: isEqual }) => !isEqual).map(({ key }) => key);
  return { buckets: rows.length, different };
}

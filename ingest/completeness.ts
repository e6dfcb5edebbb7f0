import { inOrganization, type TenantDatabase, type Transaction } from '../drizzle/transaction.ts';
import { WindowTooLargeError } from '../errors.ts';
import {
  edgeGaps,
  gapBetween,
  percentOf,
  sequenceCompleteness,
  type SequenceCompleteness,
  type TimeGap,
} from './completeness-gaps.ts';
import { parseRanges } from './sequence-ranges.ts';
import { Turns } from './turns.ts';
import { microsOf, timestampText } from '../drizzle/timestamp-text.ts';

/** Numbered messages of one boot. */
export interface BootCompleteness extends SequenceCompleteness {
  readonly boot: number;
  readonly firstAt: Date;
  readonly lastAt: Date;
  /** Of `missing`: numbers that are no longer listed as gaps, because there were too many. */
  readonly forgotten: number;
}

/** Readings of one metric in a window. */
export interface MetricCompleteness {
  readonly metric: string;
  /** Interval of readings; null when it was not given and fewer than two readings tell. */
  readonly cadenceMicros: number | null;
  readonly received: number;
  /** Null without a cadence. */
  readonly missing: number | null;
  readonly percent: number | null;
  /** By time, at most as many as asked for. */
  readonly gaps: readonly TimeGap[];
  readonly gapCount: number;
}

/** A question for the completeness of one device. Times are microseconds since 1970. */
export interface CompletenessQuery {
  readonly organizationId: number;
  readonly deviceId: number;
  readonly fromMicros: number;
  /** First time that is not asked for; not after now. */
  readonly toMicros: number;
  /** Only this boot. */
  readonly boot: number | null;
  /** Names; null: all metrics of the device. */
  readonly metrics: readonly string[] | null;
  /** Null: the median of the intervals in the window, for each metric. */
  readonly cadenceMicros: number | null;
  /** Most gaps of one metric. */
  readonly gapsMax: number;
}

/** What of a device's messages and readings is there, and what is not. */
export interface Completeness {
  /** Boots that have sent within the window, the one that sent last first. @throws {StoreUnavailableError} */
  boots(query: CompletenessQuery): Promise<BootCompleteness[]>;
  /**
   * In the order of names. One question at a time for each organization, and two in all.
   * @throws {WindowTooLargeError} for too many readings. @throws {QuestionsBusyError} when its turn does not
   * come within two seconds. @throws {StoreUnavailableError}
   */
  metrics(query: CompletenessQuery): Promise<MetricCompleteness[]>;
}

/** Boots that are kept of a device; see {@link pruneBoots}. */
export const BOOTS_PER_DEVICE_MAX = 20;
/** Readings that one question looks at: about a second of work. */
const READINGS_MAX = 500_000;

/** Of 8 connections, which the logins of devices need as well. */
const AT_ONCE_MAX = 2;
const WAIT_MS_MAX = 2000;

/** Makes the part that looks for gaps. All is worked out from what is stored: what comes late closes its gap. */
export function createCompleteness(
  database: TenantDatabase,
  readingsMax: number = READINGS_MAX,
): Completeness {
  const turns = new Turns({ all: AT_ONCE_MAX, waitMs: WAIT_MS_MAX });
  return {
    boots: (query) =>
      inOrganization(database, query.organizationId, (transaction) =>
        selectBoots(transaction, query),
      ),
    metrics: (query) =>
      turns.run(query.organizationId, () =>
        inOrganization(database, query.organizationId, (transaction) =>
          selectSeries(transaction, query, readingsMax),
        ),
      ),
  };
}

async function selectSeries(
  transaction: Transaction,
  query: CompletenessQuery,
  readingsMax: number,
): Promise<MetricCompleteness[]> {
  const found: MetricCompleteness[] = [];
  let left = readingsMax;
  for (const { metric_id, name } of await selectMetrics(transaction, query)) {
    const series = await lookAt(transaction, query, { metricId: metric_id, rowsMax: left });
    if (series.received > left) throw new WindowTooLargeError(readingsMax);
    left -= series.received;
    found.push({ metric: name, ...series });
  }
  return found;
}

async function selectBoots(
  { client }: Transaction,
  { organizationId, deviceId, boot, fromMicros, toMicros }: CompletenessQuery,
): Promise<BootCompleteness[]> {
  const { rows } = await client.query<BootRow>(
    `SELECT boot, received::text AS received, forgotten::float8 AS forgotten, first_at, last_at
     FROM device_sequence JOIN device USING (device_id)
     WHERE device_id = $2 AND device.organization_id = $1 AND ($3::int8 IS NULL OR boot = $3)
       AND last_at >= $4::timestamptz - interval '1 minute' AND first_at < $5::timestamptz
     ORDER BY last_at DESC, boot DESC LIMIT ${BOOTS_PER_DEVICE_MAX}`,
    [organizationId, deviceId, boot, timestampText(fromMicros), timestampText(toMicros)],
  );
  return rows.flatMap((row) => {
    const sequence = sequenceCompleteness(parseRanges(row.received), row.forgotten);
    if (sequence === null) return [];
    const { forgotten, first_at: firstAt, last_at: lastAt } = row;
    return [{ boot: Number(row.boot), firstAt, lastAt, forgotten, ...sequence }];
  });
}

interface BootRow {
  boot: string;
  received: string;
  forgotten: number;
  first_at: Date;
  last_at: Date;
}

async function selectMetrics(
  { client }: Transaction,
  { organizationId, deviceId, metrics }: CompletenessQuery,
): Promise<{ metric_id: number; name: string }[]> {
  const { rows } = await client.query<{ metric_id: number; name: string }>(
    `SELECT metric_id, metric.name FROM device_latest JOIN metric USING (metric_id)
     WHERE device_latest.device_id = $2 AND metric.organization_id = $1
       AND ($3::text[] IS NULL OR metric.name = ANY($3))
     ORDER BY metric.name`,
    [organizationId, deviceId, metrics],
  );
  return rows;
}

interface SeriesRow {
  readings: number;
  first_micros: number | null;
  last_micros: number | null;
  cadence_micros: number | null;
  missing: number;
  gap_count: number;
  /** Readings that end a gap, and the ones before them. */
  gaps: readonly { readonly before: number; readonly after: number }[] | null;
}

/**
 * The statement that looks at one series. It depends on its plan: the innermost query walks the primary
 * key (device_id, metric_id, time), in partitions and chunks of the window only, and stops after $6 rows.
 */
export const SERIES = `
  WITH times AS MATERIALIZED (
    SELECT micros, lag(micros) OVER (ORDER BY micros) AS before FROM (
      SELECT ${microsOf('time')} AS micros FROM reading
      WHERE device_id = $2 AND time >= $4::timestamptz AND time < $5::timestamptz
        AND metric_id = (SELECT metric_id FROM metric WHERE metric_id = $3 AND organization_id = $1)
      ORDER BY reading.time LIMIT $6
    ) AS asked
  ), pace AS (
    SELECT count(*)::float8 AS readings, min(micros) AS first_micros, max(micros) AS last_micros,
           coalesce($7::float8, percentile_disc(0.5) WITHIN GROUP (ORDER BY micros - before)) AS cadence_micros
    FROM times
  ), gap AS MATERIALIZED (
    SELECT before, micros AS after, floor((micros - before) / cadence_micros + 0.5) - 1 AS missing
    FROM times, pace WHERE micros - before > 1.5 * cadence_micros
  )
  SELECT pace.*, (SELECT coalesce(sum(missing), 0) FROM gap)::float8 AS missing,
         (SELECT count(*) FROM gap)::float8 AS gap_count,
         (SELECT json_agg(listed) FROM (SELECT before, after FROM gap ORDER BY after LIMIT $8) AS listed) AS gaps
  FROM pace`;

async function lookAt(
  { client }: Transaction,
  query: CompletenessQuery,
  { metricId, rowsMax }: { metricId: number; rowsMax: number },
): Promise<Omit<MetricCompleteness, 'metric'>> {
  const { organizationId, deviceId, fromMicros, toMicros, gapsMax } = query;
  const { rows } = await client.query<SeriesRow>(SERIES, [
    organizationId,
    deviceId,
    metricId,
    timestampText(fromMicros),
    timestampText(toMicros),
    rowsMax + 1,
    query.cadenceMicros,
    gapsMax,
  ]);
  const [row] = rows;
  if (row === undefined) throw new Error('an aggregate without a row');
  const { readings: received, cadence_micros: cadence } = row;
  if (cadence === null || cadence <= 0) {
    return {
      cadenceMicros: null,
      received,
      missing: null,
      percent: null,
      gaps: [],
      gapCount: 0,
    };
  }
  const edges = edgeGaps(
    {
      fromMicros,
      endMicros: toMicros,
      beforeMicros: await findBefore(client, query, metricId),
      firstMicros: row.first_micros,
      lastMicros: row.last_micros,
    },
    cadence,
  );
  const inner = (row.gaps ?? []).map(({ before, after }) => gapBetween(before, after, cadence));
  const missing = edges.reduce((sum, gap) => sum + gap.missing, row.missing);
  return {
    cadenceMicros: cadence,
    received,
    missing,
    percent: percentOf(received, missing),
    gaps: [...edges, ...inner]
      .filter((gap) => gap !== null)
      .toSorted((a, b) => a.fromMicros - b.fromMicros)
      .slice(0, gapsMax),
    gapCount: row.gap_count + edges.length,
  };
}

async function findBefore(
  client: Transaction['client'],
  { organizationId, deviceId, fromMicros }: CompletenessQuery,
  metricId: number,
): Promise<number | null> {
  const { rows } = await client.query<{ micros: number }>(
    `SELECT ${microsOf('time')} AS micros FROM reading
     WHERE device_id = $2 AND time < $4::timestamptz
       AND metric_id = (SELECT metric_id FROM metric WHERE metric_id = $3 AND organization_id = $1)
     ORDER BY reading.time DESC LIMIT 1`,
    [organizationId, deviceId, metricId, timestampText(fromMicros)],
  );
  return rows[0]?.micros ?? null;
}

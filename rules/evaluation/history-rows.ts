import type pg from 'pg';
import { guardStore } from '../../drizzle/sqlstate.ts';
import { microsOf } from '../../drizzle/timestamp-text.ts';

/** A series that history is wanted of. Times in microseconds since 1970; Infinity: no bound. */
export interface WantedSeries {
  readonly deviceId: number;
  readonly metricId: number;
  readonly metric: string;
  readonly isText: boolean;
  readonly historyMicros: number;
  /** Readings that are wanted from before the window; at least 1. */
  readonly samplesBefore: number;
  /** Its newest reading. */
  readonly latest: {
    readonly timeMicros: number;
    readonly receivedMicros: number;
    readonly value: number | null;
    readonly text: string | null;
  };
  /** First event time that is no history. */
  readonly beforeMicros: number;
  /** First time of receipt that is no history. */
  readonly receivedBeforeMicros: number;
  /** What was received behind it may not have been evaluated; Infinity: all was. */
  readonly unevaluatedMicros: number;
}

/** A reading of one of the series asked for. */
export interface HistoryRow {
  /** Index of the series. */
  readonly i: number;
  readonly time_micros: number;
  readonly value: number | null;
  readonly text_value: string | null;
}

/** Readings of a series that are looked at to find where evaluation is to begin again. */
export const CATCH_UP_ROWS_MAX = 2048;
/** Event times of live readings are seldom more than this before their receipt. */
const LIVE_LAG_MICROS = 60_000_000;

/** One item of the parameter of the statements; text of a time, `infinity` where there is no bound. */
interface SeriesParameter {
  readonly i: number;
  readonly device_id: number;
  readonly metric_id: number;
  readonly from_micros: number | null;
  readonly before_micros: number | null;
  readonly received_before_micros: number | null;
  readonly unevaluated_micros?: number;
}

const timeOf = (name: string, infinity: 'infinity' | '-infinity'): string =>
  `coalesce(to_timestamp(asked.${name} / 1000000.0), '${infinity}'::timestamptz)`;

const ASKED = `jsonb_to_recordset($1::jsonb) AS asked (i int4, device_id int4, metric_id int4,
  from_micros float8, before_micros float8, received_before_micros float8,
  unevaluated_micros float8)`;

/** With times in place of microseconds, so that partitions are left out by them. */
const BOUNDED = `SELECT i, device_id, metric_id, ${timeOf('from_micros', '-infinity')} AS from_time,
    ${timeOf('before_micros', 'infinity')} AS before_time,
    ${timeOf('received_before_micros', 'infinity')} AS received_before,
    to_timestamp(asked.unevaluated_micros / 1000000.0) AS unevaluated
  FROM ${ASKED}`;

/**
 * The statement that reads history. It depends on its plan: for each series the inner queries walk the
 * primary key (device_id, metric_id, time) backwards, one from the end of the window to its beginning or
 * the bound of rows, the other over the rows wanted before it. $2: rows of a window, $3: rows before it, the
 * same for all series, so that the planner knows it.
 */
export const HISTORY_STATEMENT = `
  WITH series AS MATERIALIZED (${BOUNDED})
  SELECT series.i, ${microsOf('found.time')} AS time_micros, found.value, found.text_value
  FROM series CROSS JOIN LATERAL (
    (SELECT time, value, text_value FROM reading
     WHERE reading.device_id = series.device_id AND reading.metric_id = series.metric_id
       AND reading.time >= series.from_time AND reading.time < series.before_time
       AND reading.received_at < series.received_before
     ORDER BY reading.time DESC LIMIT $2)
    UNION ALL
    (SELECT time, value, text_value FROM reading
     WHERE reading.device_id = series.device_id AND reading.metric_id = series.metric_id
       AND reading.time < series.from_time AND reading.time < series.before_time
       AND reading.received_at < series.received_before
     ORDER BY reading.time DESC LIMIT $3)
  ) AS found`;

/**
 * Of each series the first time that may not have been evaluated, among the newest $2 rows from `from` on,
 * and whether the row before those may be such a one as well. By the same walk.
 */
const CATCH_UP_STATEMENT = `
  WITH series AS MATERIALIZED (${BOUNDED})
  SELECT series.i, ${microsOf('newest.first')} AS first_micros,
    coalesce(older.received_at > series.unevaluated, false) AS is_deeper
  FROM series CROSS JOIN LATERAL (
    SELECT min(time) FILTER (WHERE received_at > series.unevaluated) AS first FROM (
      SELECT time, received_at FROM reading
      WHERE reading.device_id = series.device_id AND reading.metric_id = series.metric_id
        AND reading.time >= series.from_time AND reading.time < series.before_time
        AND reading.received_at < series.received_before
      ORDER BY reading.time DESC LIMIT $2) AS walked
  ) AS newest
  LEFT JOIN LATERAL (
    SELECT received_at FROM reading
    WHERE reading.device_id = series.device_id AND reading.metric_id = series.metric_id
      AND reading.time < series.from_time AND reading.time < series.before_time
      AND reading.received_at < series.received_before
    ORDER BY reading.time DESC LIMIT 1
  ) AS older ON true`;

/** What is read of each series. */
export interface HistorySpan {
  /** Where its window begins. */
  readonly fromMicros: (series: WantedSeries) => number;
  /** Rows of the window, the newest. */
  readonly rowsMax: number;
  /** Rows from before the window, the newest. */
  readonly samplesBefore: number;
}

/** Parameters of {@link HISTORY_STATEMENT}. */
export function historyValues(
  series: readonly WantedSeries[],
  { fromMicros, rowsMax, samplesBefore }: HistorySpan,
): unknown[] {
  const parameters = series.map((one, i) => parameterOf(one, i, fromMicros(one)));
  return [JSON.stringify(parameters), rowsMax, samplesBefore];
}

/** Reads history, in no order. */
export async function readHistory(
  pool: pg.Pool,
  series: readonly WantedSeries[],
  span: HistorySpan,
): Promise<HistoryRow[]> {
  const values = historyValues(series, span);
  const { rows } = await guardStore(pool.query<HistoryRow>(HISTORY_STATEMENT, values));
  return rows;
}

/**
 * The first event time of each series that may not have been evaluated; those without are left out. Most
 * are found among the readings of the last minute; a device that has sent what it had stored needs a
 * second look, which sees {@link CATCH_UP_ROWS_MAX} readings.
 */
export async function findUnevaluated(
  pool: pg.Pool,
  series: readonly WantedSeries[],
): Promise<Map<WantedSeries, number>> {
  const firsts = new Map<WantedSeries, number>();
  const look = async (
    asked: readonly WantedSeries[],
    lagMicros: number,
  ): Promise<WantedSeries[]> => {
    if (asked.length === 0) return [];
    const { rows } = await guardStore(
      pool.query<{ i: number; first_micros: number | null; is_deeper: boolean }>(
        CATCH_UP_STATEMENT,
        [
          JSON.stringify(asked.map((one, i) => catchUpParameterOf(one, i, lagMicros))),
          CATCH_UP_ROWS_MAX,
        ],
      ),
    );
    const deeper: WantedSeries[] = [];
    for (const { i, first_micros: first, is_deeper: isDeeper } of rows) {
      const one = asked[i];
      if (one === undefined) continue;
      if (first !== null) firsts.set(one, first);
      if (isDeeper) deeper.push(one);
    }
    return deeper;
  };
  await look(await look(series, LIVE_LAG_MICROS), Infinity);
  return firsts;
}

function catchUpParameterOf(series: WantedSeries, i: number, lagMicros: number): SeriesParameter {
  const from = series.unevaluatedMicros - lagMicros;
  return { ...parameterOf(series, i, from), unevaluated_micros: series.unevaluatedMicros };
}

function parameterOf(series: WantedSeries, i: number, fromMicros: number): SeriesParameter {
  const { deviceId, metricId, beforeMicros, receivedBeforeMicros } = series;
  return {
    i,
    device_id: deviceId,
    metric_id: metricId,
    from_micros: finiteOrNull(fromMicros),
    before_micros: finiteOrNull(beforeMicros),
    received_before_micros: finiteOrNull(receivedBeforeMicros),
  };
}

function finiteOrNull(micros: number): number | null {
  return Number.isFinite(micros) ? micros : null;
}

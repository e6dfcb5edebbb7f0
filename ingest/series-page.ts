import { microsOf, timestampText } from '../drizzle/timestamp-text.ts';

/** A question for some of the history of one device: of readings, or of what was made of them. */
export interface SeriesPageQuery {
  readonly organizationId: number;
  readonly deviceId: number;
  /** Null: all metrics of the device. Names it does not have find nothing. */
  readonly metrics: readonly string[] | null;
  /** First microsecond, or null for the beginning. */
  readonly fromMicros: number | null;
  /** First microsecond that is no longer asked for, or null for the end. */
  readonly toMicros: number | null;
  /** By time, and by metric id within the same microsecond. */
  readonly order: 'asc' | 'desc';
  readonly limit: number;
  /** The last row of the page before. */
  readonly after: { readonly timeMicros: number; readonly metricId: number } | null;
}

/** Where the rows are: a relation with the key (device_id, metric_id, `time`). */
export interface SeriesRelation {
  readonly relation: string;
  /** Its column of times. */
  readonly time: string;
  /** What else is read of it. */
  readonly columns: readonly string[];
}

/** SQL and its values. */
export interface Statement {
  readonly text: string;
  readonly values: unknown[];
}

/**
 * The statement of one page and one row more: the columns asked for, `metric_id`, `time_micros`, and the
 * metric's `name` and `kind`. It depends on its plan: for each series of the device (`device_latest` lists
 * them) the inner query walks the key (device_id, metric_id, time) in the order asked for and stops after
 * a page; the outer one merges. A page of one metric costs one walk of `limit` rows, a page of m metrics
 * at most m of them, however long the history is. The times are given as values and not through a
 * subquery, so partitions and chunks outside of them are not looked at. The place of the page before is
 * given twice: as a bound of time, which the index can use, and exactly.
 */
export function seriesPageStatement(query: SeriesPageQuery, from: SeriesRelation): Statement {
  const values: unknown[] = [query.organizationId, query.deviceId, query.limit + 1];
  const direction = query.order === 'asc' ? 'ASC' : 'DESC';
  const bounds = boundsOf(query, from.time, values);
  const named =
    query.metrics === null ? '' : `AND metric.name = ANY($${values.push(query.metrics)})`;
  const columns = ['metric_id', ...from.columns];
  const text = `
    SELECT metric.name, metric.kind, ${columns.map((column) => `page.${column}`).join(', ')},
           ${microsOf('page.time')} AS time_micros
    FROM device_latest AS series
    JOIN metric ON metric.metric_id = series.metric_id
    CROSS JOIN LATERAL (
      SELECT made.${from.time} AS time, ${columns.map((column) => `made.${column}`).join(', ')}
      FROM ${from.relation} AS made
      WHERE made.device_id = $2 AND made.metric_id = series.metric_id ${bounds.join(' ')}
      ORDER BY made.${from.time} ${direction}
      LIMIT $3
    ) AS page
    WHERE series.device_id = $2 AND metric.organization_id = $1 ${named}
    ORDER BY page.time ${direction}, page.metric_id ${direction}
    LIMIT $3`;
  return { text, values };
}

/** Adds to `values` what the bounds name. */
function boundsOf(query: SeriesPageQuery, timeColumn: string, values: unknown[]): string[] {
  const give = (value: unknown): string => `$${values.push(value)}`;
  const giveTime = (timeMicros: number): string =>
    `${give(timestampText(timeMicros))}::timestamptz`;
  const { fromMicros, toMicros, after, order } = query;
  const bounds: string[] = [];
  if (fromMicros !== null) bounds.push(`AND made.${timeColumn} >= ${giveTime(fromMicros)}`);
  if (toMicros !== null) bounds.push(`AND made.${timeColumn} < ${giveTime(toMicros)}`);
  if (after === null) return bounds;
  const sign = order === 'asc' ? '>' : '<';
  const time = giveTime(after.timeMicros);
  const metricId = `${give(after.metricId)}::int4`;
  bounds.push(`AND made.${timeColumn} ${sign}= ${time}`);
  bounds.push(`AND (made.${timeColumn} ${sign} ${time} OR made.metric_id ${sign} ${metricId})`);
  return bounds;
}

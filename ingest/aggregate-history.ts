import { cutPage, type Page } from '../drizzle/page.ts';
import { inOrganization, type TenantDatabase } from '../drizzle/transaction.ts';
import { LEVELS, type LevelName } from './aggregates/levels.ts';
import { microsOf, timestampText } from './timestamp-text.ts';

/** The numbers of one metric of a device in one bucket. */
export interface Aggregate {
  /** Beginning of the bucket, microseconds since 1970. */
  readonly timeMicros: number;
  readonly metricId: number;
  readonly metric: string;
  /** At least 1: a bucket without a number is not there. */
  readonly count: number;
  readonly sum: number;
  readonly min: number;
  readonly max: number;
  readonly first: number;
  readonly last: number;
}

/** A question for the aggregates of one device. */
export interface AggregatesQuery {
  readonly organizationId: number;
  readonly deviceId: number;
  readonly level: LevelName;
  /** Null: all metrics of the device. Names it does not have find nothing. */
  readonly metrics: readonly string[] | null;
  /** Buckets that begin from this microsecond on, or null for the beginning. */
  readonly fromMicros: number | null;
  /** Buckets that begin before this microsecond, or null for the end. */
  readonly toMicros: number | null;
  /** By time, and by metric id within a bucket. */
  readonly order: 'asc' | 'desc';
  readonly limit: number;
  /** The last bucket of the page before. */
  readonly after: { readonly timeMicros: number; readonly metricId: number } | null;
}

/** One page of buckets. @throws {StoreUnavailableError} */
export async function readAggregates(
  database: TenantDatabase,
  query: AggregatesQuery,
): Promise<Page<Aggregate>> {
  const { text, values } = aggregatesStatement(query);
  const { rows } = await inOrganization(database, query.organizationId, ({ client }) =>
    client.query<AggregateRow>(text, values),
  );
  return cutPage(rows.map(aggregateOf), query.limit);
}

interface AggregateRow {
  metric_id: number;
  name: string;
  time_micros: number;
  count: string;
  sum: number;
  min: number;
  max: number;
  first: number;
  last: number;
}

/**
 * The statement of one page, as that of readings: each series of the device is looked up in the index
 * (device_id, metric_id, bucket), what is not materialised yet is aggregated for that series alone, and
 * each gives a page at most.
 */
function aggregatesStatement(query: AggregatesQuery): { text: string; values: unknown[] } {
  const values: unknown[] = [query.organizationId, query.deviceId, query.limit + 1];
  const give = (value: unknown): string => `$${values.push(value)}`;
  const giveTime = (timeMicros: number): string =>
    `${give(timestampText(timeMicros))}::timestamptz`;
  const direction = query.order === 'asc' ? 'ASC' : 'DESC';
  const bounds: string[] = [];
  if (query.fromMicros !== null) bounds.push(`AND made.bucket >= ${giveTime(query.fromMicros)}`);
  if (query.toMicros !== null) bounds.push(`AND made.bucket < ${giveTime(query.toMicros)}`);
  if (query.after !== null) {
    const sign = query.order === 'asc' ? '>' : '<';
    const time = giveTime(query.after.timeMicros);
    const metricId = `${give(query.after.metricId)}::int4`;
    bounds.push(`AND made.bucket ${sign}= ${time}`);
    bounds.push(`AND (made.bucket ${sign} ${time} OR made.metric_id ${sign} ${metricId})`);
  }
  const named = query.metrics === null ? '' : `AND metric.name = ANY(${give(query.metrics)})`;
  const relation = LEVELS.find(({ name }) => name === query.level)?.relation ?? '';
  const text = `
    SELECT metric.name, page.*, ${microsOf('page.bucket')} AS time_micros
    FROM device_latest AS series
    JOIN metric ON metric.metric_id = series.metric_id
    CROSS JOIN LATERAL (
      SELECT made.metric_id, made.bucket, made.count, made.sum, made.min, made.max, made.first,
             made.last
      FROM ${relation} AS made
      WHERE made.device_id = $2 AND made.metric_id = series.metric_id ${bounds.join(' ')}
      ORDER BY made.bucket ${direction}
      LIMIT $3
    ) AS page
    WHERE series.device_id = $2 AND metric.organization_id = $1 ${named}
    ORDER BY page.bucket ${direction}, page.metric_id ${direction}
    LIMIT $3`;
  return { text, values };
}

function aggregateOf({ metric_id, name, time_micros, count, ...row }: AggregateRow): Aggregate {
  const { sum, min, max, first, last } = row;
  const figures = { count: Number(count), sum, min, max, first, last };
  return { timeMicros: time_micros, metricId: metric_id, metric: name, ...figures };
}

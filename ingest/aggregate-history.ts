import { cutPage, type Page } from '../drizzle/page.ts';
import { inOrganization, type TenantDatabase } from '../drizzle/transaction.ts';
import { LEVELS, type LevelName } from './aggregates/levels.ts';
import { seriesPageStatement, type SeriesPageQuery, type Statement } from './series-page.ts';

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

/** A question for the aggregates of one device; times are those at which buckets begin. */
export interface AggregatesQuery extends SeriesPageQuery {
  readonly level: LevelName;
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

/** What is not materialised yet is aggregated for one series of the device at a time. */
function aggregatesStatement(query: AggregatesQuery): Statement {
  return seriesPageStatement(query, {
    relation: LEVELS.find(({ name }) => name === query.level)?.relation ?? '',
    time: 'bucket',
    columns: ['count', 'sum', 'min', 'max', 'first', 'last'],
  });
}

function aggregateOf({ metric_id, name, time_micros, count, ...row }: AggregateRow): Aggregate {
  const { sum, min, max, first, last } = row;
  const figures = { count: Number(count), sum, min, max, first, last };
  return { timeMicros: time_micros, metricId: metric_id, metric: name, ...figures };
}

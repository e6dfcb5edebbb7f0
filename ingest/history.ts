import { cutPage, type Page } from '../drizzle/page.ts';
import { inOrganization, type TenantDatabase } from '../drizzle/transaction.ts';
import { readAggregates, type Aggregate, type AggregatesQuery } from './aggregate-history.ts';
import type { MetricKind } from './metric-catalog.ts';
import { microsOf, timestampText } from './timestamp-text.ts';

/** One stored value of a device. */
export interface Reading {
  /** Microseconds since 1970. */
  readonly timeMicros: number;
  readonly metricId: number;
  readonly metric: string;
  /** Kind of the metric. A text is a text whatever it says. */
  readonly kind: MetricKind;
  /** Null for a text. Of a bool 1 or 0. */
  readonly value: number | null;
  readonly text: string | null;
}

/** The newest value of a metric of a device. */
export interface LatestReading extends Reading {
  readonly unit: string | null;
  /** Microseconds since 1970. */
  readonly receivedMicros: number;
  /** Where its time comes from: a value of QUALITY in the wire contract. */
  readonly quality: number;
}

/** A question for the history of one device. */
export interface ReadingsQuery {
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
  /** The last reading of the page before. */
  readonly after: { readonly timeMicros: number; readonly metricId: number } | null;
}

/** Reads what devices sent. */
export interface History {
  /** One page. @throws {StoreUnavailableError} */
  readings(query: ReadingsQuery): Promise<Page<Reading>>;
  /** The newest value of each metric, in the order of names. @throws {StoreUnavailableError} */
  latest(organizationId: number, deviceId: number): Promise<LatestReading[]>;
  /** One page of buckets. @throws {StoreUnavailableError} */
  aggregates(query: AggregatesQuery): Promise<Page<Aggregate>>;
}

/** Makes the reading side of ingest. */
export function createHistory(database: TenantDatabase): History {
  return {
    async readings(query) {
      const { text, values } = readingsStatement(query);
      const { rows } = await inOrganization(database, query.organizationId, ({ client }) =>
        client.query<ReadingRow>(text, values),
      );
      return cutPage(rows.map(readingOf), query.limit);
    },

    aggregates: (query) => readAggregates(database, query),

    async latest(organizationId, deviceId) {
      const { rows } = await inOrganization(database, organizationId, ({ client }) =>
        client.query<LatestRow>(
          `SELECT metric.metric_id, metric.name, metric.kind, metric.unit,
                  device_latest.value, device_latest.text_value, device_latest.quality,
                  ${microsOf('device_latest.time')} AS time_micros,
                  ${microsOf('device_latest.received_at')} AS received_micros
           FROM device_latest JOIN metric USING (metric_id)
           WHERE device_latest.device_id = $2 AND metric.organization_id = $1
           ORDER BY metric.name`,
          [organizationId, deviceId],
        ),
      );
      return rows.map((row) => ({
        ...readingOf(row),
        unit: row.unit,
        receivedMicros: row.received_micros,
        quality: row.quality,
      }));
    },
  };
}

interface ReadingRow {
  metric_id: number;
  name: string;
  kind: MetricKind;
  value: number | null;
  text_value: string | null;
  time_micros: number;
}

interface LatestRow extends ReadingRow {
  unit: string | null;
  received_micros: number;
  quality: number;
}

/**
 * The statement of one page. It depends on its plan: for each series of the device (`device_latest`
 * lists them) the inner query walks the primary key (device_id, metric_id, time) in the order asked
 * for and stops after a page; the outer one merges. A page of one metric costs one walk of `limit`
 * rows, a page of m metrics at most m of them, however long the history is. The times are given as
 * values and not through a subquery, so partitions and chunks outside of them are not looked at.
 * The place of the page before is given twice: as a bound of `time`, which the index can use, and
 * exactly.
 */
export function readingsStatement(query: ReadingsQuery): { text: string; values: unknown[] } {
  const values: unknown[] = [query.organizationId, query.deviceId, query.limit + 1];
  const give = (value: unknown): string => `$${values.push(value)}`;
  const giveTime = (timeMicros: number): string =>
    `${give(timestampText(timeMicros))}::timestamptz`;
  const direction = query.order === 'asc' ? 'ASC' : 'DESC';
  const bounds: string[] = [];
  if (query.fromMicros !== null) bounds.push(`AND reading.time >= ${giveTime(query.fromMicros)}`);
  if (query.toMicros !== null) bounds.push(`AND reading.time < ${giveTime(query.toMicros)}`);
  if (query.after !== null) {
    const sign = query.order === 'asc' ? '>' : '<';
    const time = giveTime(query.after.timeMicros);
    const metricId = `${give(query.after.metricId)}::int4`;
    bounds.push(`AND reading.time ${sign}= ${time}`);
    bounds.push(`AND (reading.time ${sign} ${time} OR reading.metric_id ${sign} ${metricId})`);
  }
  const named = query.metrics === null ? '' : `AND metric.name = ANY(${give(query.metrics)})`;
  const text = `
    SELECT metric.name, metric.kind, page.metric_id, page.value, page.text_value,
           ${microsOf('page.time')} AS time_micros
    FROM device_latest AS series
    JOIN metric ON metric.metric_id = series.metric_id
    CROSS JOIN LATERAL (
      SELECT reading.time, reading.metric_id, reading.value, reading.text_value
      FROM reading
      WHERE reading.device_id = $2 AND reading.metric_id = series.metric_id ${bounds.join(' ')}
      ORDER BY reading.time ${direction}
      LIMIT $3
    ) AS page
    WHERE series.device_id = $2 AND metric.organization_id = $1 ${named}
    ORDER BY page.time ${direction}, page.metric_id ${direction}
    LIMIT $3`;
  return { text, values };
}

function readingOf(row: ReadingRow): Reading {
  return {
    timeMicros: row.time_micros,
    metricId: row.metric_id,
    metric: row.name,
    kind: row.kind,
    value: row.value,
    text: row.text_value,
  };
}

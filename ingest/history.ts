import { cutPage, type Page } from '../drizzle/page.ts';
import { inOrganization, type TenantDatabase } from '../drizzle/transaction.ts';
import { readAggregates, type Aggregate, type AggregatesQuery } from './aggregate-history.ts';
import type { MetricKind } from './metric-catalog.ts';
import { seriesPageStatement, type SeriesPageQuery, type Statement } from './series-page.ts';
import { microsOf } from '../drizzle/timestamp-text.ts';

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

/** Reads what devices sent. */
export interface History {
  /** One page. @throws {StoreUnavailableError} */
  readings(query: SeriesPageQuery): Promise<Page<Reading>>;
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

/** The statement of one page of readings. */
export function readingsStatement(query: SeriesPageQuery): Statement {
  const columns = ['value', 'text_value'];
  return seriesPageStatement(query, { relation: 'reading', time: 'time', columns });
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

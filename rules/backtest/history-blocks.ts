import { timestampText } from '../../drizzle/timestamp-text.ts';
import { inOrganization, type TenantDatabase } from '../../drizzle/transaction.ts';

/** The readings of one series in a span of time, packed as the database sends them. */
export interface SeriesBlock {
  readonly deviceId: number;
  readonly metric: string;
  readonly count: number;
  readonly times: Buffer;
  readonly values: Buffer;
  /** Null when all are numbers or booleans; null for each that is. */
  readonly texts: readonly (string | null)[] | null;
}

/** Which readings. */
export interface BlockQuery {
  readonly organizationId: number;
  readonly deviceIds: readonly number[];
  /** Null: all. */
  readonly metrics: readonly string[] | null;
  readonly fromMicros: number;
  /** Exclusive. */
  readonly toMicros: number;
}

/** Between 1970 and 2000, where PostgreSQL begins to count, in microseconds. */
const EPOCH_MICROS = 946_684_800_000_000;
const TWO_32 = 4_294_967_296;

/**
 * A column of a series comes as one value: 16 bytes a reading, and no object for it. Reading rows one by
 * one cost ten times as much here.
 */
const blocksOf = (ofMetrics: string): string => `
  SELECT reading.device_id, metric.name AS metric, count(*)::int4 AS count,
         string_agg(timestamptz_send(reading.time), ''::bytea ORDER BY reading.time) AS times,
         string_agg(float8send(COALESCE(reading.value, 'NaN')), ''::bytea ORDER BY reading.time) AS values,
         CASE WHEN metric.kind = 'text'
              THEN json_agg(reading.text_value ORDER BY reading.time)::text END AS texts
  FROM reading JOIN metric USING (metric_id)
  WHERE reading.device_id = ANY($2::int4[]) AND metric.organization_id = $1 ${ofMetrics}
    AND reading.time >= $3::timestamptz AND reading.time < $4::timestamptz
  GROUP BY reading.device_id, metric.metric_id, metric.name, metric.kind
  ORDER BY reading.device_id`;

const ALL_METRICS = blocksOf('');
const SOME_METRICS = blocksOf(`
    AND reading.metric_id = ANY
      (ARRAY(SELECT metric_id FROM metric WHERE organization_id = $1 AND name = ANY($5::text[])))`);

/** Reads the blocks of some devices. @throws {StoreUnavailableError} */
export async function readBlocks(
  database: TenantDatabase,
  query: BlockQuery,
): Promise<SeriesBlock[]> {
  const { organizationId, deviceIds, metrics, fromMicros, toMicros } = query;
  const values = [
    organizationId,
    deviceIds,
    timestampText(fromMicros),
    timestampText(toMicros),
    ...(metrics === null ? [] : [metrics]),
  ];
  const { rows } = await inOrganization(database, organizationId, ({ client }) =>
    client.query<BlockRow>(metrics === null ? ALL_METRICS : SOME_METRICS, values),
  );
  return rows.map(({ device_id: deviceId, texts, ...block }) => ({
    ...block,
    deviceId,
    texts: texts === null ? null : (JSON.parse(texts) as (string | null)[]),
  }));
}

/** Time of a reading of a block, in microseconds since 1970. */
export function timeAt({ times }: SeriesBlock, index: number): number {
  return times.readInt32BE(8 * index) * TWO_32 + times.readUInt32BE(8 * index + 4) + EPOCH_MICROS;
}

/** Value of a reading of a block; NaN of a text. */
export function valueAt({ values }: SeriesBlock, index: number): number {
  return values.readDoubleBE(8 * index);
}

interface BlockRow {
  device_id: number;
  metric: string;
  count: number;
  times: Buffer;
  values: Buffer;
  texts: string | null;
}

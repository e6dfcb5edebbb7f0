import type { Pool } from 'pg';
import { guardStore } from '../../drizzle/sqlstate.ts';
import type { SketchContent } from './cadence.ts';
import type { ConnectionState } from '../compiled-rule.ts';
import type { CadenceRow, NoDataStore, StoredActivity } from './no-data-port.ts';
import type { Outage } from './outages.ts';

/*
 * A reading that came late does not move `device_latest`: `last_received_at` of the cadence may be newer.
 * The lateral query is one look at the key of `device_latest` for each device.
 */
const LOAD = `
  SELECT device.device_id, device.organization_id, presence.state,
         (extract(epoch FROM presence.last_contact_at) * 1000000)::float8 AS contact_micros,
         (extract(epoch FROM greatest(latest.received_at, cadence.last_received_at)) * 1000000)::float8
           AS reading_micros,
         (presence.hello ->> 'sleep')::float8 AS sleep_s, device.report_interval_ms,
         cadence.sketch
  FROM device
  LEFT JOIN device_presence AS presence ON presence.device_id = device.device_id
  LEFT JOIN device_cadence AS cadence ON cadence.device_id = device.device_id
  LEFT JOIN LATERAL (
    SELECT max(received_at) AS received_at FROM device_latest
    WHERE device_latest.device_id = device.device_id
  ) AS latest ON true
  WHERE device.device_id = ANY ($1::int4[])`;

/** In the order of ids, so that two programs never wait for each other in a circle. */
const WRITE = `
  INSERT INTO device_cadence
    (device_id, organization_id, gap_p99_ms, samples, sketch, last_received_at, updated_at)
  SELECT device_id, device.organization_id, gap_p99_ms, samples, sketch,
         to_timestamp(received_micros / 1000000.0), now()
  FROM jsonb_to_recordset($1::jsonb) AS given (
    device_id int4, gap_p99_ms float8, samples int4, sketch jsonb, received_micros float8)
  JOIN device USING (device_id)
  ORDER BY device_id
  ON CONFLICT (device_id) DO UPDATE SET
    gap_p99_ms = excluded.gap_p99_ms, samples = excluded.samples, sketch = excluded.sketch,
    last_received_at = excluded.last_received_at, updated_at = excluded.updated_at`;

const WRITE_UPTIME = `
  INSERT INTO rule_uptime (node, up_at, outages)
  VALUES ($1, to_timestamp($2::float8 / 1000000.0), $3::jsonb)
  ON CONFLICT (node) DO UPDATE SET up_at = excluded.up_at, outages = excluded.outages`;

const LOAD_UPTIME = `
  SELECT (extract(epoch FROM up_at) * 1000000)::float8 AS up_micros, outages
  FROM rule_uptime WHERE node = $1`;

/** The tables `device_cadence` and `rule_uptime`, and what `NoData` reads of a device's activity. */
export function createCadenceStore(
  { pool }: { readonly pool: Pool },
  node = 'single',
): NoDataStore {
  return {
    async load(deviceIds) {
      const { rows } = await guardStore(pool.query<ActivityRow>(LOAD, [deviceIds]));
      return rows.map(activityOf);
    },
    async writeCadences(rows) {
      await guardStore(pool.query(WRITE, [JSON.stringify(rows.map(givenOf))]));
    },
    async loadUptime() {
      const { rows } = await guardStore(pool.query<UptimeRow>(LOAD_UPTIME, [node]));
      const [row] = rows;
      if (row === undefined) return { outages: [], upMicros: null };
      return { outages: row.outages.map(outageOf), upMicros: row.up_micros };
    },
    async writeUptime(outages, upMicros) {
      const content = JSON.stringify(
        outages.map(({ downMicros, backMicros }) => [
          Number.isFinite(downMicros) ? downMicros / 1000 : null,
          backMicros / 1000,
        ]),
      );
      await guardStore(pool.query(WRITE_UPTIME, [node, upMicros, content]));
    },
  };
}

interface ActivityRow {
  device_id: number;
  organization_id: number;
  state: ConnectionState | null;
  contact_micros: number | null;
  reading_micros: number | null;
  sleep_s: number | null;
  report_interval_ms: number | null;
  sketch: SketchContent | null;
}

interface UptimeRow {
  up_micros: number;
  outages: [number | null, number][];
}

function activityOf(row: ActivityRow): StoredActivity {
  return {
    deviceId: row.device_id,
    organizationId: row.organization_id,
    lastReadingMicros: row.reading_micros,
    lastContactMicros: row.contact_micros,
    connection: row.state ?? 'never',
    sleepS: row.sleep_s ?? 0,
    intervalMicros: row.report_interval_ms === null ? null : row.report_interval_ms * 1000,
    cadence: row.sketch,
  };
}

function givenOf({ deviceId, gapP99Micros, sketch, lastReceivedMicros }: CadenceRow): object {
  const samples = sketch.buckets.reduce((sum, [, weight]) => sum + weight, 0);
  return {
    device_id: deviceId,
    gap_p99_ms: gapP99Micros / 1000,
    samples: Math.round(samples),
    sketch,
    received_micros: lastReceivedMicros,
  };
}

function outageOf([downMs, backMs]: [number | null, number]): Outage {
  return { downMicros: downMs === null ? -Infinity : downMs * 1000, backMicros: backMs * 1000 };
}

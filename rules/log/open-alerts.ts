import type pg from 'pg';
import { z } from 'zod';
import { guardStore } from '../../drizzle/sqlstate.ts';
import { microsOf } from '../../drizzle/timestamp-text.ts';
import type { AlertState, Held } from '../alert/alert.ts';
import { severityOfText } from './alert-plan.ts';
import type { OpenAlert, SettledAlert } from '../evaluation/device-load.ts';
import { levelOf, type Level } from '../severity.ts';

/** Rows of one page of {@link listOpenAlerts}. */
const PAGE_ROWS = 1000;
/** Alerts that {@link settledAlertsOf} finds for one device; steps behind them are found as duplicates. */
const SETTLED_PER_DEVICE_MAX = 1000;

const OPEN_COLUMNS = `alert.alert_id, alert.rule_id, alert.rule_version, alert.device_id,
  alert.group_key, alert.state, alert.severity, alert.sequence, alert.occurrences, alert.snapshot,
  ${microsOf('alert.active_at')} AS active_micros, ${microsOf('alert.fired_at')} AS fired_micros,
  ${microsOf('alert.changed_at')} AS changed_micros`;

/**
 * All alerts that are open, of devices that exist, page by page: for the start, so that timers of devices
 * that stay silent go on. @throws {StoreUnavailableError}
 */
export async function listOpenAlerts(pool: pg.Pool): Promise<OpenAlert[]> {
  const alerts: OpenAlert[] = [];
  for (let after: unknown[] = [0, 0, '']; ;) {
    const { rows } = await guardStore(
      // In the order of the index alert_open_key, which has these rows alone.
      pool.query<OpenAlertRow>(
        `SELECT ${OPEN_COLUMNS} FROM alert JOIN device ON device.device_id = alert.device_id
         WHERE alert.state IN ('pending', 'firing') AND NOT alert.is_historical
           AND (alert.rule_id, alert.device_id, alert.group_key) > ($1::int4, $2::int4, $3::text)
         ORDER BY alert.rule_id, alert.device_id, alert.group_key LIMIT ${PAGE_ROWS}`,
        after,
      ),
    );
    for (const row of rows) alerts.push(openAlertOf(row));
    const last = rows.at(-1);
    if (last === undefined || rows.length < PAGE_ROWS) return alerts;
    after = [last.rule_id, last.device_id, last.group_key];
  }
}

/** The open alerts of some devices, in no order. @throws {StoreUnavailableError} */
export async function openAlertsOf(
  pool: pg.Pool,
  deviceIds: readonly number[],
): Promise<OpenAlert[]> {
  const { rows } = await guardStore(
    pool.query<OpenAlertRow>(
      `SELECT ${OPEN_COLUMNS} FROM alert
       WHERE alert.state IN ('pending', 'firing') AND NOT alert.is_historical
         AND alert.device_id = ANY($1)`,
      [deviceIds],
    ),
  );
  return rows.map(openAlertOf);
}

/**
 * Of each device, rule and group key the last alert that ended at or behind a time of the device.
 * @throws {StoreUnavailableError}
 */
export async function settledAlertsOf(
  pool: pg.Pool,
  from: ReadonlyMap<number, number>,
): Promise<Map<number, SettledAlert[]>> {
  const settled = new Map<number, SettledAlert[]>();
  if (from.size === 0) return settled;
  const { rows } = await guardStore(
    pool.query<{ device_id: number; rule_id: number; group_key: string; until_micros: number }>(
      `SELECT asked.device_id, ended.rule_id, ended.group_key,
         ${microsOf('max(ended.changed_at)')} AS until_micros
       FROM jsonb_to_recordset($1::jsonb) AS asked (device_id int4, from_micros float8)
       CROSS JOIN LATERAL (
         SELECT rule_id, group_key, changed_at FROM alert
         WHERE alert.device_id = asked.device_id AND alert.state IN ('resolved', 'inactive')
           AND alert.changed_at >= to_timestamp(asked.from_micros / 1000000.0)
           AND NOT alert.is_historical
         ORDER BY changed_at DESC LIMIT ${SETTLED_PER_DEVICE_MAX}
       ) AS ended
       GROUP BY 1, 2, 3`,
      [JSON.stringify([...from].map(([id, micros]) => ({ device_id: id, from_micros: micros })))],
    ),
  );
  for (const row of rows) {
    const alert = { ruleId: row.rule_id, groupKey: row.group_key, untilMicros: row.until_micros };
    const ofDevice = settled.get(row.device_id);
    if (ofDevice === undefined) settled.set(row.device_id, [alert]);
    else ofDevice.push(alert);
  }
  return settled;
}

interface OpenAlertRow {
  alert_id: string;
  rule_id: number;
  rule_version: number;
  device_id: number;
  group_key: string;
  state: 'pending' | 'firing';
  severity: string;
  sequence: number;
  occurrences: number;
  snapshot: unknown;
  active_micros: number;
  fired_micros: number | null;
  changed_micros: number;
}

const level = z.union([0, 1, 2, 3, 4, 5].map((is) => z.literal(is as Level)));
const held: z.ZodType<Held> = z.lazy(() =>
  z.object({ level, since: z.number(), next: held.nullable() }),
);
const snapshotSchema: z.ZodType<AlertState> = z.object({
  phase: z.enum(['inactive', 'pending', 'firing']),
  level,
  activeAt: z.number().nullable(),
  firedAt: z.number().nullable(),
  clearSince: z.number().nullable(),
  raise: held.nullable(),
  lower: held.nullable(),
});

function openAlertOf(row: OpenAlertRow): OpenAlert {
  return {
    alertId: row.alert_id,
    ruleId: row.rule_id,
    ruleVersion: row.rule_version,
    deviceId: row.device_id,
    groupKey: row.group_key,
    state: stateOf(row),
    sequence: row.sequence,
    occurrences: row.occurrences,
    changedMicros: row.changed_micros,
  };
}

/** As the columns have it where the snapshot is not one of this version: no timer but `for` is kept then. */
function stateOf(row: OpenAlertRow): AlertState {
  const { success, data } = snapshotSchema.safeParse(row.snapshot);
  if (success && data.phase === row.state) return data;
  return {
    phase: row.state,
    level: levelOf(severityOfText(row.severity)),
    activeAt: row.active_micros,
    firedAt: row.fired_micros,
    clearSince: null,
    raise: null,
    lower: null,
  };
}

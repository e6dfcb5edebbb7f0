import type pg from 'pg';
import { guardStore } from '../../drizzle/sqlstate.ts';

/** An alert that fires for a device. */
export interface FiringAlert {
  readonly deviceId: number;
  /** Id of the rule in the API. */
  readonly ruleId: string;
  readonly rule: string;
  readonly severity: string;
  /** When it began to fire, in ms since 1970. */
  readonly firedMs: number;
}

/**
 * Alerts of an organization that began to fire for one of the devices at or after a time and fire now;
 * shadow alerts are none. @throws {StoreUnavailableError}
 */
export async function findFiringAlerts(
  pool: pg.Pool,
  organizationId: number,
  devices: { readonly deviceIds: readonly number[]; readonly sinceMs: number },
): Promise<readonly FiringAlert[]> {
  const { rows } = await guardStore(
    pool.query<FiringAlert>(
      `SELECT alert.device_id AS "deviceId", rule.public_id AS "ruleId", rule.name AS rule,
         alert.severity, extract(epoch FROM alert.fired_at)::float8 * 1000 AS "firedMs"
       FROM alert JOIN alert_rule rule USING (rule_id)
       WHERE alert.organization_id = $1 AND alert.device_id = ANY ($2) AND alert.state = 'firing'
         AND NOT alert.is_shadow AND NOT alert.is_historical
         AND alert.fired_at >= to_timestamp($3::float8 / 1000)`,
      [organizationId, devices.deviceIds, devices.sinceMs],
    ),
  );
  return rows;
}

import { inOrganization, type TenantDatabase } from '../../drizzle/transaction.ts';
import { microsOf, timestampText } from '../../drizzle/timestamp-text.ts';
import { timeWords } from './value-words.ts';

/** The last alert of a rule for a device that had fired by a time. Times in microseconds since 1970. */
export interface LastAlert {
  readonly alertId: string;
  readonly firedMicros: number;
  /** Null: it is firing. */
  readonly resolvedMicros: number | null;
}

/** Which rule, device and time. */
export interface LastAlertQuery {
  readonly organizationId: number;
  readonly ruleId: number;
  readonly deviceId: number;
  readonly atMicros: number;
}

const LAST = `
  SELECT alert_id AS "alertId", ${microsOf('fired_at')} AS "firedMicros",
         ${microsOf('resolved_at')} AS "resolvedMicros"
  FROM alert
  WHERE organization_id = $1 AND rule_id = $2 AND device_id = $3
    AND fired_at <= $4::timestamptz AND NOT is_historical
  ORDER BY active_at DESC LIMIT 1`;

/** As it was recorded live; null when there is none. @throws {StoreUnavailableError} */
export async function readLastAlert(
  database: TenantDatabase,
  { organizationId, ruleId, deviceId, atMicros }: LastAlertQuery,
): Promise<LastAlert | null> {
  const values = [organizationId, ruleId, deviceId, timestampText(atMicros)];
  const { rows } = await inOrganization(database, organizationId, ({ client }) =>
    client.query<LastAlert>(LAST, values),
  );
  return rows[0] ?? null;
}

/** Whether an alert was firing at a time. */
export function wasFiring({ resolvedMicros }: LastAlert, atMicros: number): boolean {
  return resolvedMicros === null || resolvedMicros > atMicros;
}

/** An alert in a sentence. */
export function lastAlertWords(alert: LastAlert, atMicros: number): string {
  const { alertId, firedMicros, resolvedMicros } = alert;
  const where = `GET /api/v1/alerts/${alertId}/explain says why`;
  if (wasFiring(alert, atMicros)) {
    return `It did fire: an alert was firing at that time, since ${timeWords(firedMicros)}; ${where}.`;
  }
  const end = resolvedMicros === null ? '' : ` and was resolved at ${timeWords(resolvedMicros)}`;
  return `It fired last at ${timeWords(firedMicros)}${end}; ${where}.`;
}

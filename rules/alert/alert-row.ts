import { microsOf } from '../../drizzle/timestamp-text.ts';
import type { Transaction } from '../../drizzle/transaction.ts';
import { AlertNotFoundError } from '../../rule-errors.ts';
import type { Severity } from '../severity.ts';

/** States as they are stored: an alert that has fired and ended is `resolved`, one that never fired `inactive`. */
export const ALERT_STATES = ['pending', 'firing', 'resolved', 'inactive'] as const;

/** One of {@link ALERT_STATES}. */
export type StoredAlertState = (typeof ALERT_STATES)[number];

/** An alert as people see it. Times are in microseconds since 1970. */
export interface StoredAlert {
  readonly alertId: string;
  /** Public id and name of its rule, as it is called now. */
  readonly rulePublicId: string;
  readonly rule: string;
  readonly ruleVersion: number;
  /** Key inside. */
  readonly ruleId: number;
  readonly deviceId: number;
  /** Slug; null of a device that is being deleted. */
  readonly device: string | null;
  readonly groupKey: string;
  readonly state: StoredAlertState;
  readonly severity: Severity;
  readonly value: number | string | null;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly activeMicros: number;
  readonly firedMicros: number | null;
  readonly resolvedMicros: number | null;
  readonly changedMicros: number;
  readonly occurrences: number;
  readonly isShadow: boolean;
  readonly isHistorical: boolean;
  readonly acknowledgedMicros: number | null;
  readonly acknowledgedBy: string | null;
  readonly assignee: string | null;
  readonly snoozedUntilMicros: number | null;
  readonly verdict: boolean | null;
  readonly verdictBy: string | null;
  readonly verdictMicros: number | null;
}

/** Columns of an alert, of {@link ALERT_TABLES}. Named as {@link StoredAlert} is. */
export const ALERT_COLUMNS = `alert.alert_id AS "alertId", rule.public_id AS "rulePublicId",
  rule.name AS rule, alert.rule_version AS "ruleVersion", alert.rule_id AS "ruleId",
  alert.device_id AS "deviceId", device.slug AS device, alert.group_key AS "groupKey", alert.state,
  alert.severity, alert.value AS "numberValue", alert.text_value AS "textValue", alert.labels,
  alert.annotations, ${microsOf('alert.active_at')} AS "activeMicros",
  ${microsOf('alert.fired_at')} AS "firedMicros", ${microsOf('alert.resolved_at')} AS "resolvedMicros",
  ${microsOf('alert.changed_at')} AS "changedMicros", alert.occurrences,
  alert.is_shadow AS "isShadow", alert.is_historical AS "isHistorical",
  ${microsOf('alert.acknowledged_at')} AS "acknowledgedMicros",
  alert.acknowledged_by AS "acknowledgedBy", alert.assignee,
  ${microsOf('alert.snoozed_until')} AS "snoozedUntilMicros", alert.verdict,
  alert.verdict_by AS "verdictBy", ${microsOf('alert.verdict_at')} AS "verdictMicros"`;

/** An alert with its rule, which may be deleted, and its device. */
export const ALERT_TABLES = `alert JOIN alert_rule AS rule USING (rule_id)
  LEFT JOIN device ON device.device_id = alert.device_id`;

/** A row as {@link ALERT_COLUMNS} gives it. */
export interface AlertDatabaseRow extends Omit<StoredAlert, 'value'> {
  readonly numberValue: number | null;
  readonly textValue: string | null;
}

/** The alert of a row. */
export function alertOf({ numberValue, textValue, ...rest }: AlertDatabaseRow): StoredAlert {
  return { ...rest, value: numberValue ?? textValue };
}

/** An alert of an organization. @throws {AlertNotFoundError} */
export async function getAlert(
  { client }: Transaction,
  organizationId: number,
  alertId: string,
): Promise<StoredAlert> {
  const { rows } = await client.query<AlertDatabaseRow>(
    `SELECT ${ALERT_COLUMNS} FROM ${ALERT_TABLES}
     WHERE alert.organization_id = $1 AND alert.alert_id = $2`,
    [organizationId, alertId],
  );
  const [row] = rows;
  if (row === undefined) throw new AlertNotFoundError(alertId);
  return alertOf(row);
}

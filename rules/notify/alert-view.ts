import type { Transaction } from '../../drizzle/transaction.ts';
import { SEVERITIES, type Level, type Severity } from '../severity.ts';
import type { NotifiedAlert } from './message.ts';
import type { Labelled } from './matchers.ts';

/** An alert as it stands now, with all that decides on who is told of it. */
export interface AlertView extends Labelled {
  readonly alertId: string;
  readonly ruleId: number;
  readonly rulePublicId: string;
  readonly rule: string;
  readonly deviceId: number;
  readonly device: string;
  readonly groupKey: string;
  readonly isFiring: boolean;
  readonly severity: Severity;
  /** 1 to 5, of `severity`. */
  readonly level: Level;
  readonly value: number | string | null;
  readonly annotations: Readonly<Record<string, string>>;
  readonly activeAt: Date;
  readonly firedAt: Date | null;
  readonly resolvedAt: Date | null;
  /** Of a rule that only records, or found in readings that came late. */
  readonly isUntold: boolean;
  readonly isAcknowledged: boolean;
  readonly snoozedUntilMs: number | null;
  readonly suppressedBy: readonly { readonly rule: string; readonly device: string | null }[];
}

interface AlertRow {
  alert_id: string;
  rule_id: number;
  rule_public_id: string;
  rule: string;
  device_id: number;
  device: string;
  tags: string[];
  device_type: string | null;
  group_key: string;
  state: string;
  severity: Severity;
  value: number | null;
  text_value: string | null;
  labels: Record<string, string>;
  annotations: Record<string, string>;
  active_at: Date;
  fired_at: Date | null;
  resolved_at: Date | null;
  is_untold: boolean;
  acknowledged_at: Date | null;
  snoozed_until: Date | null;
  suppressed_by: unknown;
}

/** The alerts of an organization by their ids; one whose device or rule is gone is missing. */
export async function loadAlerts(
  { client }: Pick<Transaction, 'client'>,
  organizationId: number,
  alertIds: readonly string[],
): Promise<Map<string, AlertView>> {
  if (alertIds.length === 0) return new Map();
  const { rows } = await client.query<AlertRow>(
    `SELECT alert.alert_id, alert.rule_id, rule.public_id AS rule_public_id, rule.name AS rule,
            alert.device_id, device.slug AS device, device.tags, device.device_type,
            alert.group_key, alert.state, alert.severity, alert.value, alert.text_value,
            alert.labels, alert.annotations, alert.active_at, alert.fired_at, alert.resolved_at,
            alert.is_shadow OR alert.is_historical AS is_untold, alert.acknowledged_at,
            alert.snoozed_until, said.definition->'suppressedBy' AS suppressed_by
     FROM alert
     JOIN alert_rule AS rule
       ON rule.rule_id = alert.rule_id AND rule.organization_id = alert.organization_id
     JOIN device
       ON device.device_id = alert.device_id AND device.organization_id = alert.organization_id
     LEFT JOIN alert_rule_version AS said
       ON said.rule_id = alert.rule_id AND said.version = alert.rule_version
     WHERE alert.organization_id = $1 AND alert.alert_id = ANY($2::uuid[])`,
    [organizationId, alertIds],
  );
  return new Map(rows.map((row) => [row.alert_id, viewOf(row)]));
}

function viewOf(row: AlertRow): AlertView {
  return {
    alertId: row.alert_id,
    ruleId: row.rule_id,
    rulePublicId: row.rule_public_id,
    rule: row.rule,
    deviceId: row.device_id,
    device: row.device,
    groupKey: row.group_key,
    isFiring: row.state === 'firing',
    severity: row.severity,
    level: (SEVERITIES.indexOf(row.severity) + 1) as Level,
    value: row.value ?? row.text_value,
    labels: {
      ...row.labels,
      alertname: row.rule,
      device: row.device,
      severity: row.severity,
      ...(row.device_type === null ? {} : { device_type: row.device_type }),
    },
    tags: row.tags,
    annotations: row.annotations,
    activeAt: row.active_at,
    firedAt: row.fired_at,
    resolvedAt: row.resolved_at,
    isUntold: row.is_untold,
    isAcknowledged: row.acknowledged_at !== null,
    snoozedUntilMs: row.snoozed_until?.getTime() ?? null,
    suppressedBy: suppressorsOf(row.suppressed_by),
  };
}

/** Of JSON that was checked when the rule was saved. */
function suppressorsOf(stored: unknown): AlertView['suppressedBy'] {
  if (!Array.isArray(stored)) return [];
  return stored.flatMap((item: unknown) => {
    if (typeof item !== 'object' || item === null || !('rule' in item)) return [];
    const device = 'device' in item && typeof item.device === 'string' ? item.device : null;
    return typeof item.rule === 'string' ? [{ rule: item.rule, device }] : [];
  });
}

/** An alert as receivers are told of it. */
export function toNotified(view: AlertView): NotifiedAlert {
  return {
    alertId: view.alertId,
    rule: view.rule,
    ruleId: view.rulePublicId,
    device: view.device,
    severity: view.severity,
    state: view.isFiring ? 'firing' : 'resolved',
    value: view.value,
    labels: view.labels,
    annotations: view.annotations,
    activeAt: view.activeAt.toISOString(),
    firedAt: view.firedAt?.toISOString() ?? null,
    resolvedAt: view.resolvedAt?.toISOString() ?? null,
  };
}

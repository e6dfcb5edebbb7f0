import type { Transaction } from '../../drizzle/transaction.ts';
import type { AlertView } from './alert-view.ts';
import type { Hold } from './decision.ts';

/** Alerts that are firing, by {@link inhibitorKey}, of the rules that others are suppressed by. */
export type Inhibitors = ReadonlySet<string>;

/**
 * Whether an alert of a rule that this one is suppressed by is firing, on the device named there or on its
 * own. An alert never inhibits itself, and one of its own rule on another device may.
 */
export function inhibitorOf(alert: AlertView, firing: Inhibitors): Hold | null {
  for (const { rule, device } of alert.suppressedBy) {
    const where = device ?? alert.device;
    if (rule === alert.rule && where === alert.device) continue;
    if (firing.has(inhibitorKey(rule, where))) {
      return { reason: 'inhibited', by: `${rule} on ${where}` };
    }
  }
  return null;
}

/** Names a rule and a device. */
export function inhibitorKey(rule: string, device: string): string {
  return JSON.stringify([rule, device]);
}

/** Which of the rules that these alerts are suppressed by are firing, on which devices. */
export async function loadInhibitors(
  { client }: Pick<Transaction, 'client'>,
  organizationId: number,
  alerts: Iterable<AlertView>,
): Promise<Inhibitors> {
  const rules = new Set<string>();
  const devices = new Set<string>();
  for (const alert of alerts) {
    for (const { rule, device } of alert.suppressedBy) {
      rules.add(rule);
      devices.add(device ?? alert.device);
    }
  }
  if (rules.size === 0) return new Set();
  const { rows } = await client.query<{ rule: string; device: string }>(
    `SELECT DISTINCT rule.name AS rule, device.slug AS device
     FROM alert_rule AS rule
     JOIN alert ON alert.rule_id = rule.rule_id AND alert.organization_id = rule.organization_id
     JOIN device ON device.device_id = alert.device_id
     WHERE rule.organization_id = $1 AND rule.deleted_at IS NULL AND rule.name = ANY($2)
       AND alert.state = 'firing' AND NOT alert.is_historical AND NOT alert.is_shadow
       AND device.slug = ANY($3)`,
    [organizationId, [...rules], [...devices]],
  );
  return new Set(rows.map(({ rule, device }) => inhibitorKey(rule, device)));
}

import { alertIdOf } from '../../rules/alert/alert-id.ts';
import type { TransitionDetail } from '../../rules/alert/transition-detail.ts';
import type { TestApi } from './api.ts';

/** A rule that fires above 80. */
export const HOT_RULE = {
  name: 'boiler too hot',
  severity: 'critical',
  when: { metric: 'temp', op: '>', value: 80, clear: 75 },
  for: '2s',
  annotations: { summary: '{{device}} is at {{value}} °C' },
};

/** What an alert of a test has; the rest is made up. */
export interface TestAlert {
  /** Public id of its rule. */
  readonly rule: string;
  readonly device: string;
  /** Milliseconds since 1970. */
  readonly activeAt: number;
  readonly state?: 'pending' | 'firing' | 'resolved' | 'inactive';
  readonly severity?: string;
  readonly version?: number;
  readonly value?: number | null;
  readonly isShadow?: boolean;
  readonly isHistorical?: boolean;
}

/** Writes an alert with its steps, as the alert log does. @returns its id. */
export async function insertAlert(t: TestApi, alert: TestAlert): Promise<string> {
  const { pool } = t.test.database;
  const { state = 'firing', activeAt, severity = 'critical', version = 1 } = alert;
  const { rows } = await pool.query<{
    rule_id: number;
    organization_id: number;
    device_id: number;
  }>(
    `SELECT rule_id, organization_id, device_id FROM alert_rule JOIN device USING (organization_id)
     WHERE public_id = $1 AND slug = $2`,
    [alert.rule, alert.device],
  );
  const [owner] = rows;
  if (owner === undefined) throw new Error('no such rule or device');
  const alertId = alertIdOf(owner.rule_id, owner.device_id, '', activeAt * 1000);
  const firedAt = state === 'firing' || state === 'resolved' ? new Date(activeAt + 2000) : null;
  const resolvedAt = state === 'resolved' ? new Date(activeAt + 60_000) : null;
  const { isShadow = false, isHistorical = false, value = 81.5 } = alert;
  await pool.query(
    `INSERT INTO alert (alert_id, organization_id, rule_id, rule_version, device_id, state, severity,
       value, labels, annotations, active_at, fired_at, resolved_at, changed_at, is_shadow,
       is_historical)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '{"team":"heating"}', '{"summary":"hot"}', $9, $10, $11,
       $9, $12, $13)`,
    [
      alertId,
      owner.organization_id,
      owner.rule_id,
      version,
      owner.device_id,
      state,
      severity,
      value,
      new Date(activeAt),
      firedAt,
      resolvedAt,
      isShadow,
      isHistorical,
    ],
  );
  const steps: [string, string, Date | null, string][] = [
    ['inactive', 'pending', new Date(activeAt), 'condition_holds'],
    ['pending', 'firing', firedAt, 'for_elapsed'],
    ['firing', 'inactive', resolvedAt, 'condition_cleared'],
  ];
  for (const [sequence, [from, to, at, reason]] of steps.entries()) {
    if (at === null) continue;
    await pool.query(
      `INSERT INTO alert_transition (alert_id, sequence, organization_id, rule_id, rule_version,
         device_id, at, from_state, to_state, severity, reason, detail, recorded_at)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $7)`,
      [
        alertId,
        sequence,
        owner.organization_id,
        owner.rule_id,
        version,
        owner.device_id,
        at,
        from,
        to,
        severity,
        reason,
        detailOf(activeAt * 1000, value),
      ],
    );
  }
  return alertId;
}

function detailOf(activeMicros: number, value: number | null): TransitionDetail {
  const held = { name: 'temp', value, timeMicros: activeMicros, against: '> 80', holds: true };
  const nothing = { firedAt: null, clearSince: null, raise: null, lower: null };
  const timers = { level: 5, activeAt: activeMicros, ...nothing } as const;
  return { operands: [held], operandsCut: 0, value, timers, occurrences: 1 };
}

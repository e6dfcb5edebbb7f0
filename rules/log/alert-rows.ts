import { timestampText } from '../../drizzle/timestamp-text.ts';
import type { PlannedAlert, PlannedTransition } from './alert-plan.ts';
import { storable } from '../storable.ts';
import { detailOf } from '../alert/transition-detail.ts';
import type { Transition } from '../alert/transition.ts';

/*
 * Each of these takes the JSON of its rows as its only parameter.
 */

const ALERT_ROW = `jsonb_to_recordset($1::jsonb) AS made (alert_id uuid, organization_id int4,
  rule_id int4, rule_version int4, device_id int4, group_key text, state text, severity text,
  has_value boolean, has_texts boolean, value float8, text_value text, labels jsonb, annotations jsonb,
  active_at timestamptz, fired_at timestamptz, resolved_at timestamptz, changed_at timestamptz,
  occurrences int4, sequence int4, is_shadow boolean, is_historical boolean, snapshot jsonb)`;

/** Leaves out, of each row, an alert that exists, and one whose key has an open alert. */
export const INSERT_ALERTS = `
  INSERT INTO alert (alert_id, organization_id, rule_id, rule_version, device_id, group_key, state,
    severity, value, text_value, labels, annotations, active_at, fired_at, resolved_at, changed_at,
    occurrences, sequence, is_shadow, is_historical, snapshot)
  SELECT alert_id, organization_id, rule_id, rule_version, device_id, group_key, state, severity, value,
    text_value, labels, annotations, active_at, fired_at, resolved_at, changed_at, occurrences, sequence,
    is_shadow, is_historical, snapshot
  FROM ${ALERT_ROW}
  ORDER BY alert_id
  ON CONFLICT DO NOTHING`;

/** Changes nothing where a later transition is on record. */
export const UPDATE_ALERTS = `
  UPDATE alert SET rule_version = made.rule_version, state = made.state, severity = made.severity,
    value = CASE WHEN has_value THEN made.value ELSE alert.value END,
    text_value = CASE WHEN has_value THEN made.text_value ELSE alert.text_value END,
    labels = CASE WHEN has_texts THEN made.labels ELSE alert.labels END,
    annotations = CASE WHEN has_texts THEN made.annotations ELSE alert.annotations END, fired_at = made.fired_at,
    resolved_at = made.resolved_at, changed_at = made.changed_at, occurrences = made.occurrences,
    sequence = made.sequence, is_shadow = made.is_shadow, snapshot = made.snapshot
  FROM ${ALERT_ROW}
  WHERE alert.alert_id = made.alert_id AND alert.organization_id = made.organization_id
    AND alert.sequence < made.sequence`;

/** Those that nobody is to be told of count as seen by the notification stages. */
export const INSERT_TRANSITIONS = `
  INSERT INTO alert_transition (alert_id, sequence, organization_id, rule_id, rule_version, device_id,
    at, from_state, to_state, severity, reason, detail, is_historical, notified_at)
  SELECT alert_id, sequence, organization_id, rule_id, rule_version, device_id, at, from_state, to_state,
    severity, reason, detail, is_historical, CASE WHEN is_silent THEN now() END
  FROM jsonb_to_recordset($1::jsonb) AS made (alert_id uuid, sequence int4, organization_id int4,
    rule_id int4, rule_version int4, device_id int4, at timestamptz, from_state text, to_state text,
    severity text, reason text, detail jsonb, is_historical boolean, is_silent boolean)
  ORDER BY alert_id, sequence
  ON CONFLICT DO NOTHING`;

/** The row of an alert. */
export function alertRow(alert: PlannedAlert): object {
  const { last, state, valueOf } = alert;
  const value = valueOf?.value ?? null;
  const isClosed = state === 'resolved' || state === 'inactive';
  return {
    alert_id: last.alertId,
    organization_id: last.organizationId,
    rule_id: last.ruleId,
    rule_version: last.ruleVersion,
    device_id: last.deviceId,
    group_key: storable(last.groupKey),
    state,
    severity: alert.severity,
    has_value: valueOf !== null,
    has_texts: hasTexts(last),
    value: typeof value === 'number' ? value : null,
    text_value: typeof value === 'string' ? value : null,
    labels: last.labels,
    annotations: last.annotations,
    active_at: timestampText(alert.activeMicros),
    fired_at: alert.firedMicros === null ? null : timestampText(alert.firedMicros),
    resolved_at: state === 'resolved' ? timestampText(alert.changedMicros) : null,
    changed_at: timestampText(alert.changedMicros),
    occurrences: alert.occurrences,
    sequence: alert.sequence,
    is_shadow: alert.isShadow,
    is_historical: last.isHistorical,
    snapshot: isClosed ? null : last.state,
  };
}

/** The row of a transition. */
export function transitionRow(planned: PlannedTransition): object {
  const { transition, adoptedFrom, isSilent } = planned;
  return {
    alert_id: transition.alertId,
    sequence: transition.sequence,
    organization_id: transition.organizationId,
    rule_id: transition.ruleId,
    rule_version: transition.ruleVersion,
    device_id: transition.deviceId,
    at: timestampText(transition.atMicros),
    from_state: transition.from,
    to_state: transition.to,
    severity: transition.severity,
    reason: transition.reason,
    detail: detailOf(transition, adoptedFrom),
    is_historical: transition.isHistorical,
    is_silent: isSilent,
  };
}

/** The end of an alert whose rule is gone has none: those of before stay. */
function hasTexts({ labels, annotations, to }: Transition): boolean {
  const texts = Object.keys(labels).length + Object.keys(annotations).length;
  return texts > 0 || to !== 'inactive';
}

/** The JSON of rows, without what PostgreSQL's text cannot hold: U+0000 and halves of surrogate pairs. */
export function rowsJson(rows: readonly object[]): string {
  return JSON.stringify(rows, (_key, value: unknown) =>
    typeof value === 'string' ? storable(value) : value,
  );
}

import { createHash } from 'node:crypto';
import type pg from 'pg';
import { guardStore } from '../../drizzle/sqlstate.ts';
import { microsOf, timestampText } from '../../drizzle/timestamp-text.ts';
import { inTransaction } from '../../drizzle/transaction.ts';
import type { AlertPhase } from '../alert/alert.ts';
import { severityOfText } from './alert-plan.ts';
import { AlertWriter } from './alert-writer.ts';
import type { Severity } from '../severity.ts';
import { readDetail, type TransitionDetail } from '../alert/transition-detail.ts';
import type { Transition, TransitionReason } from '../alert/transition.ts';

/** A transition as it was recorded while it happened. */
export interface RecordedTransition {
  readonly alertId: string;
  readonly sequence: number;
  readonly ruleVersion: number;
  readonly groupKey: string;
  /** Event time. */
  readonly atMicros: number;
  readonly from: AlertPhase;
  readonly to: AlertPhase;
  readonly severity: Severity;
  readonly reason: TransitionReason;
  readonly detail: TransitionDetail;
}

/** Transitions that one question is answered with; a range with more is to be asked for in parts. */
export const RECORDED_TRANSITIONS_MAX = 10_000;

/**
 * A transition of the history that late readings make, under the id of an alert of its own: the live one,
 * of which people were told, stays as it is, also when it began at the same time.
 */
export function historicalOf(transition: Transition): Transition {
  const { alertId } = transition;
  const digest = createHash('sha256').update(`historical ${alertId}`).digest('hex');
  // The first 48 bits are the time, by which alerts are sorted and pruned; then version and variant.
  const id = `${alertId.slice(0, 15)}${digest.slice(0, 3)}-${alertId.slice(19, 20)}${digest.slice(3, 6)}-${digest.slice(6, 18)}`;
  return { ...transition, alertId: id, isHistorical: true };
}

/**
 * Records what late readings change: alerts that nobody is told of, beside the live ones. What an earlier
 * call recorded of the same alerts is replaced, so that the newest re-evaluation stands.
 * @throws {StoreUnavailableError} to be called again with the same then.
 */
export async function recordHistorical(
  pool: pg.Pool,
  transitions: readonly Transition[],
): Promise<void> {
  const historical = transitions.map(historicalOf);
  const ids = [...new Set(historical.map(({ alertId }) => alertId))];
  await inTransaction(pool, async ({ client }) => {
    await client.query('DELETE FROM alert_transition WHERE alert_id = ANY($1) AND is_historical', [
      ids,
    ]);
    await client.query('DELETE FROM alert WHERE alert_id = ANY($1) AND is_historical', [ids]);
  });
  await new AlertWriter(pool).write(historical);
}

/**
 * The live transitions of a rule and a device with an event time in [from, to), in the order of their
 * times, at most {@link RECORDED_TRANSITIONS_MAX}. @throws {StoreUnavailableError}
 */
export async function recordedTransitions(
  pool: pg.Pool,
  of: { readonly organizationId: number; readonly ruleId: number; readonly deviceId: number },
  fromMicros: number,
  toMicros: number,
): Promise<RecordedTransition[]> {
  const { rows } = await guardStore(
    pool.query<RecordedRow>(
      `SELECT step.alert_id, step.sequence, step.rule_version, alert.group_key, step.from_state,
         step.to_state, step.severity, step.reason, step.detail, ${microsOf('step.at')} AS at_micros
       FROM alert_transition AS step JOIN alert ON alert.alert_id = step.alert_id
       WHERE step.organization_id = $1 AND step.rule_id = $2 AND step.device_id = $3
         AND step.at >= $4 AND step.at < $5 AND NOT step.is_historical
       ORDER BY step.at, step.alert_id, step.sequence LIMIT ${RECORDED_TRANSITIONS_MAX}`,
      [
        of.organizationId,
        of.ruleId,
        of.deviceId,
        timestampText(fromMicros),
        timestampText(toMicros),
      ],
    ),
  );
  return rows.map((row) => ({
    alertId: row.alert_id,
    sequence: row.sequence,
    ruleVersion: row.rule_version,
    groupKey: row.group_key,
    atMicros: row.at_micros,
    from: row.from_state,
    to: row.to_state,
    severity: severityOfText(row.severity),
    reason: row.reason,
    detail: readDetail(row.detail),
  }));
}

interface RecordedRow {
  alert_id: string;
  sequence: number;
  rule_version: number;
  group_key: string;
  at_micros: number;
  from_state: AlertPhase;
  to_state: AlertPhase;
  severity: string;
  reason: TransitionReason;
  detail: unknown;
}

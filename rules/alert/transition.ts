import type { AlertPhase, AlertState } from './alert.ts';
import type { Operand } from '../compiled-rule.ts';
import type { Severity } from '../severity.ts';

/**
 * Why an alert took a step. From firing to firing, `severity_raised` and `severity_lowered` change what
 * people see; the others are for its history, and so that timers survive a restart: `condition_cleared`
 * (`keep_firing_for` begins to run), `fired_again` (it held again before that had passed), `level_changed`
 * (another level holds than the severity, or no longer does).
 */
export type TransitionReason =
  | 'condition_holds'
  | 'for_elapsed'
  | 'severity_raised'
  | 'severity_lowered'
  | 'condition_cleared'
  | 'keep_firing_for_elapsed'
  | 'fired_again'
  | 'level_changed'
  | 'no_data'
  | 'resolved_by_hand'
  | 'rule_changed'
  | 'rule_disabled'
  | 'rule_deleted'
  | 'rule_suspended'
  | 'out_of_scope';

/** A step of an alert, as it is written, explained, backtested and notified. */
export interface Transition {
  /** The same for everybody who evaluates the same readings; see `alertIdOf`. */
  readonly alertId: string;
  /** From 0 for each alert. */
  readonly sequence: number;
  readonly organizationId: number;
  readonly ruleId: number;
  readonly ruleVersion: number;
  readonly deviceId: number;
  readonly groupKey: string;
  /** Event time, microseconds since 1970. */
  readonly atMicros: number;
  readonly from: AlertPhase;
  readonly to: AlertPhase;
  readonly severity: Severity;
  readonly reason: TransitionReason;
  /** At most 16 of them. */
  readonly operands: readonly Operand[];
  /** Of the first metric of the rule. */
  readonly value: number | string | null;
  /** The state behind the step: it holds the timers. */
  readonly state: AlertState;
  /** Times fired so far. */
  readonly occurrences: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly isShadow: boolean;
  /** Found in readings that came late: recorded, and nobody is told. */
  readonly isHistorical: boolean;
}

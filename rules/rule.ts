import type { Condition } from './condition/condition.ts';
import type { RuleAction } from './action/rule-action.ts';
import type { Severity } from './severity.ts';

/** Whether a rule is evaluated, and whether anybody is told. `shadow`: evaluated and recorded only. */
export type RuleMode = 'enabled' | 'disabled' | 'shadow';

/** Which devices of the organization a rule is for; a device must match every member that is there. */
export interface RuleScope {
  /** Slugs. */
  readonly devices?: readonly string[];
  /** A device needs one of them. */
  readonly tags?: readonly string[];
  /** Device types; a device needs one of them. */
  readonly types?: readonly string[];
}

/** What to do with readings that come when later ones were evaluated already. */
export type LatePolicy = 'current-only' | 're-evaluate' | 'ignore';

/** A rule as it is evaluated: checked, durations in microseconds, defaults filled in. */
export interface RuleDefinition {
  readonly name: string;
  readonly description: string;
  readonly mode: RuleMode;
  readonly scope: RuleScope;
  readonly severity: Severity;
  readonly when: Condition;
  /** Further conditions with severities of their own, worse than `severity`; the worst that holds wins. */
  readonly levels: readonly { readonly severity: Severity; readonly when: Condition }[];
  readonly forMicros: number;
  readonly keepFiringForMicros: number;
  readonly late: LatePolicy;
  /** Readings are held back so long, and evaluated in the order of their times. */
  readonly allowedLatenessMicros: number;
  /** A text metric of the device, or a member of the event: an alert for each value of it. Null: one. */
  readonly groupBy: string | null;
  readonly labels: Readonly<Record<string, string>>;
  /** Texts with `{{device}}`, `{{value}}`, `{{severity}}`, `{{rule}}`, `{{metric NAME}}`, `{{label NAME}}`. */
  readonly annotations: Readonly<Record<string, string>>;
  /** Nobody is told while an alert of this rule is firing on the device, or on the device named there. */
  readonly suppressedBy: readonly { readonly rule: string; readonly device: string | null }[];
  /** Refuses to be enabled when a backtest would have sent more a day; null: no such bound. */
  readonly noiseBudgetPerDay: number | null;
  /** Commands that it sends. */
  readonly actions: readonly RuleAction[];
}

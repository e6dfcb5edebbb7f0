import type { AlertTiming } from '../alert/alert.ts';
import type { CompiledRule } from '../compiled-rule.ts';
import type { Condition } from '../condition/condition.ts';
import { CostMeter } from './cost.ts';

/** A compiled rule with what its instances for all devices have in common. */
export class PreparedRule {
  readonly rule: CompiledRule;
  readonly timing: AlertTiming;
  /** What its instances look at: its metrics, and behind them the one that groups by, if it is another. */
  readonly metrics: readonly string[];
  /** Place in {@link metrics} of the one that groups by; -1 when none does. */
  readonly groupIndex: number;
  readonly latenessMicros: number;
  /**
   * Whether its instances keep series of their own: others of the device may have seen a reading that
   * they must not see, or not yet.
   */
  readonly isApart: boolean;
  /** What its conditions are made of, without `all`, `any` and `not`. */
  readonly leaves: readonly Condition[];
  readonly meter = new CostMeter();

  constructor(rule: CompiledRule) {
    const { definition, metrics, events } = rule;
    this.rule = rule;
    this.timing = definition;
    this.latenessMicros = definition.allowedLatenessMicros;
    this.isApart = this.latenessMicros > 0 || definition.late !== 'current-only';
    // Of a rule that waits for events it is a member of them.
    const groupMetric = events.length === 0 ? definition.groupBy : null;
    const isMore = groupMetric !== null && !metrics.includes(groupMetric);
    this.metrics = isMore ? [...metrics, groupMetric] : metrics;
    this.leaves = [definition, ...definition.levels].flatMap(({ when }) => leavesOf(when));
    this.groupIndex = groupMetric === null ? -1 : this.metrics.indexOf(groupMetric);
  }
}

const PREPARED = new WeakMap<CompiledRule, PreparedRule>();

/** The same for the same compiled rule. */
export function prepareRule(rule: CompiledRule): PreparedRule {
  let prepared = PREPARED.get(rule);
  if (prepared === undefined) {
    prepared = new PreparedRule(rule);
    PREPARED.set(rule, prepared);
  }
  return prepared;
}

function leavesOf(condition: Condition): Condition[] {
  if (condition.kind === 'not') return leavesOf(condition.of);
  if (condition.kind !== 'all' && condition.kind !== 'any') return [condition];
  return condition.of.flatMap(leavesOf);
}

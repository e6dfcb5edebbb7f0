import { reasonOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { CompiledRule } from '../compiled-rule.ts';
import type { RuleCounters, SuspendReason } from './metrics.ts';
import { prepareRule } from './prepared-rule.ts';
import type { Transition } from '../alert/transition.ts';

/** Steps that the alerts of one rule may take for one device in a minute of event time. */
export const STEPS_PER_MINUTE_MAX = 600;
const MINUTE_MS = 60_000;

/** What {@link RuleGuard} needs. */
export interface RuleGuardDeps {
  readonly evaluationUsMax: number;
  readonly counters: RuleCounters;
  /** Told of a rule that is not evaluated from now on, and why, for people. */
  readonly onSuspend: (ruleId: number, reason: string) => void;
  readonly log: Logger;
}

/**
 * Takes rules out that would do harm: those that cost too much, whose alerts take steps without end, or
 * that throw. They stay out until somebody has changed them.
 */
export class RuleGuard {
  readonly #deps: RuleGuardDeps;
  /** By rule, its version and mode. */
  readonly #suspended = new Map<number, string>();
  /** By rule, device and minute of event time, in the minute under way: what was stored meanwhile comes at once. */
  readonly #steps = new Map<string, number>();
  #minute = 0;

  constructor(deps: RuleGuardDeps) {
    this.#deps = deps;
  }

  /** Leaves out the rules that are suspended, and forgets those that have changed since. */
  admit(rules: readonly CompiledRule[]): CompiledRule[] {
    const known = new Set(rules.map(({ ruleId }) => ruleId));
    for (const ruleId of this.#suspended.keys()) {
      if (!known.has(ruleId)) this.#suspended.delete(ruleId);
    }
    for (const rule of rules) prepareRule(rule).meter.limit(this.#deps.evaluationUsMax);
    return rules.filter((rule) => this.#suspended.get(rule.ruleId) !== stampOf(rule));
  }

  isSuspended(ruleId: number): boolean {
    return this.#suspended.has(ruleId);
  }

  /** Suspends what costs too much. To be called now and then. @returns whether there was any. */
  checkCosts(rules: readonly CompiledRule[]): boolean {
    let hasFound = false;
    for (const rule of rules) {
      const { meter } = prepareRule(rule);
      if (!meter.isOver || this.#suspended.has(rule.ruleId)) continue;
      hasFound = true;
      const took = `an evaluation takes ${Math.round(meter.meanUs)} µs`;
      this.#suspend(rule, 'cost', `${took}, ${this.#deps.evaluationUsMax} µs are allowed`);
    }
    return hasFound;
  }

  /**
   * Counts a step of an alert of one of the rules.
   * @returns whether its rule is suspended by it.
   */
  isFlood(
    { ruleId, deviceId, atMicros }: Transition,
    rules: readonly CompiledRule[],
    nowMs: number,
  ): boolean {
    const minute = Math.floor(nowMs / MINUTE_MS);
    if (minute !== this.#minute) {
      this.#minute = minute;
      this.#steps.clear();
    }
    const key = `${ruleId}/${deviceId}/${Math.floor(atMicros / 1000 / MINUTE_MS)}`;
    const steps = (this.#steps.get(key) ?? 0) + 1;
    this.#steps.set(key, steps);
    if (steps <= STEPS_PER_MINUTE_MAX || this.#suspended.has(ruleId)) return false;
    const rule = rules.find((each) => each.ruleId === ruleId);
    if (rule === undefined) return false;
    const reason = `its alerts took more than ${STEPS_PER_MINUTE_MAX} steps in a minute for one device`;
    this.#suspend(rule, 'flood', reason);
    return true;
  }

  /** Notes that a rule has thrown. @returns whether it is suspended by it. */
  failed(rule: CompiledRule, cause: unknown): boolean {
    this.#deps.counters.faults += 1;
    if (this.#suspended.has(rule.ruleId)) return false;
    const { ruleId, version } = rule;
    this.#deps.log.error({ err: cause, ruleId, version }, 'rule has thrown');
    this.#suspend(rule, 'fault', `its evaluation failed: ${reasonOf(cause)}`);
    return true;
  }

  #suspend(rule: CompiledRule, kind: SuspendReason, reason: string): void {
    const { ruleId, organizationId: orgId } = rule;
    this.#suspended.set(ruleId, stampOf(rule));
    this.#deps.counters.suspended[kind] += 1;
    this.#deps.log.warn({ ruleId, orgId, reason }, 'rule suspended');
    this.#deps.onSuspend(ruleId, reason);
  }
}

function stampOf({ version, mode }: CompiledRule): string {
  return `${version}/${mode}`;
}

import type { AlertState, Held } from './alert.ts';
import type { CompiledRule, EvaluationContext } from '../compiled-rule.ts';
import type { TransitionReason } from './transition.ts';

/** Why an alert went from one state to another, by an evaluation or a timer. */
export function reasonOf(
  rule: CompiledRule,
  { silence }: EvaluationContext,
  before: AlertState,
  next: AlertState,
): TransitionReason {
  if (before.phase === 'inactive') {
    return rule.noData !== null && silence !== null ? 'no_data' : 'condition_holds';
  }
  if (next.phase === 'inactive') {
    const isKept = before.phase === 'firing' && rule.definition.keepFiringForMicros > 0;
    return isKept ? 'keep_firing_for_elapsed' : 'condition_cleared';
  }
  if (before.phase !== next.phase) return 'for_elapsed';
  if (next.phase === 'firing' && next.level !== before.level) {
    return next.level > before.level ? 'severity_raised' : 'severity_lowered';
  }
  if (before.clearSince === null && next.clearSince !== null) return 'condition_cleared';
  return before.clearSince !== null && next.clearSince === null ? 'fired_again' : 'level_changed';
}

/** Whether a step changes what people see of an alert: then it is recorded at once. */
export function isSeen(before: AlertState, next: AlertState): boolean {
  if (next.phase === 'pending') return false;
  return next.phase !== before.phase || next.level !== before.level;
}

/** Whether two states of one alert say the same. */
export function isSameState(one: AlertState, other: AlertState): boolean {
  return (
    one.phase === other.phase &&
    one.level === other.level &&
    one.clearSince === other.clearSince &&
    isSameHeld(one.raise, other.raise) &&
    isSameHeld(one.lower, other.lower)
  );
}

function isSameHeld(one: Held | null, other: Held | null): boolean {
  if (one === null || other === null) return one === other;
  return one.level === other.level && one.since === other.since && isSameHeld(one.next, other.next);
}

import type { AlertPhase } from '../alert/alert.ts';
import type { Operand } from '../compiled-rule.ts';
import { formatDuration } from '../../duration.ts';
import type { Severity } from '../severity.ts';
import type { TransitionDetail, TransitionTimers } from '../alert/transition-detail.ts';
import type { TransitionReason } from '../alert/transition.ts';
import { timeWords, valueWords } from './value-words.ts';

/** Longest explanation of a step, in characters. */
export const STEP_WORDS_MAX = 1000;

/** A step of an alert, with the timing of the version of its rule that made it. */
export interface ExplainedStep {
  readonly from: AlertPhase;
  readonly to: AlertPhase;
  readonly severity: Severity;
  readonly reason: TransitionReason;
  /** Event time. */
  readonly atMicros: number;
  readonly detail: TransitionDetail;
  /** Null: the version is not known any more. */
  readonly timing: { readonly forMicros: number; readonly keepFiringForMicros: number } | null;
}

/** Why a step was taken, in words and numbers; at most {@link STEP_WORDS_MAX} characters. */
export function stepWords(step: ExplainedStep): string {
  const text = `${outcomeOf(step)}: ${causeOf(step)}${operandsWords(step.detail)}`;
  return text.length <= STEP_WORDS_MAX ? text : `${text.slice(0, STEP_WORDS_MAX - 1)}…`;
}

/** What an operand was, and what it was held against: `temp was 85.2 (> 80: yes)`. */
export function operandWords({ name, value, timeMicros, against, holds }: Operand): string {
  const at = timeMicros === null ? '' : ` at ${timeWords(timeMicros)}`;
  const verdict = against === null ? '' : ` (${against}: ${holds ? 'yes' : 'no'})`;
  return value === null
    ? `${name} had no value${verdict}`
    : `${name} was ${valueWords(value)}${at}${verdict}`;
}

function outcomeOf({ from, to, severity }: ExplainedStep): string {
  if (to === 'inactive') return from === 'firing' ? 'resolved' : 'no longer pending';
  if (to === 'pending') return `pending as ${severity}`;
  return from === 'firing' ? `still firing, as ${severity}` : `firing as ${severity}`;
}

function causeOf(step: ExplainedStep): string {
  const cause = CAUSES[step.reason];
  return typeof cause === 'string' ? cause : cause(step);
}

const CAUSES: Readonly<Record<TransitionReason, string | ((step: ExplainedStep) => string)>> = {
  condition_holds({ to, atMicros, timing }) {
    const began = `the condition began to hold at ${timeWords(atMicros)}`;
    if (to === 'firing') return `${began}, and the rule has no "for"`;
    return `${began}; it fires once it has held for ${lengthOf(timing?.forMicros)}`;
  },
  for_elapsed({ atMicros, timing, detail: { timers } }) {
    const held = elapsed(timers.activeAt, atMicros);
    const since = sinceWords(timers.activeAt);
    return `the condition had held since ${since}, for ${held}; "for" is ${lengthOf(timing?.forMicros)}`;
  },
  severity_raised: ({ timing }) =>
    timing?.forMicros === 0
      ? 'the condition of this severity holds now'
      : `the condition of this severity had held for ${lengthOf(timing?.forMicros)}`,
  severity_lowered: ({ timing }) =>
    timing?.keepFiringForMicros === 0
      ? 'only the condition of this severity holds now'
      : `for ${lengthOf(timing?.keepFiringForMicros)} only the condition of this severity had held`,
  condition_cleared: (step) => clearedWords(step, step.detail.timers),
  keep_firing_for_elapsed: ({ timing }) =>
    `the condition had not held for ${lengthOf(timing?.keepFiringForMicros)}, which is "keepFiringFor"`,
  fired_again({ timing, detail: { occurrences } }) {
    const kept = `before "keepFiringFor" (${lengthOf(timing?.keepFiringForMicros)}) had passed`;
    return `the condition holds again, ${kept}: the same alert, which has fired ${occurrences} times`;
  },
  level_changed: 'the condition of another severity holds now, or no longer does',
  no_data: ({ atMicros }) =>
    `the device was due by ${timeWords(atMicros)}, and no reading that could be stored had come`,
  resolved_by_hand: 'somebody resolved it by hand',
  rule_changed: 'the rule was changed, and its new version does not hold',
  rule_disabled: 'the rule was disabled',
  rule_deleted: 'the rule was deleted',
  rule_suspended: 'the rule was suspended: it cost too much, or changed too often',
  out_of_scope: 'the device is no longer in the scope of the rule',
};

function clearedWords(
  { to, from, atMicros, timing }: ExplainedStep,
  timers: TransitionTimers,
): string {
  const at = timeWords(timers.clearSince ?? atMicros);
  if (to !== 'inactive') {
    return `the condition has not held since ${at}; it is resolved when that has lasted ${lengthOf(timing?.keepFiringForMicros)}`;
  }
  const before =
    from === 'pending' ? `, before it had held for ${lengthOf(timing?.forMicros)}` : '';
  return `the condition ceased to hold at ${at}${before}`;
}

function operandsWords({ operands, operandsCut }: TransitionDetail): string {
  if (operands.length === 0) return '.';
  const more = operandsCut === 0 ? '' : `; ${operandsCut} more`;
  return `. ${operands.map(operandWords).join('; ')}${more}.`;
}

function sinceWords(timeMicros: number | null): string {
  return timeMicros === null ? 'a time that is not recorded' : timeWords(timeMicros);
}

function elapsed(fromMicros: number | null, toMicros: number): string {
  return fromMicros === null ? 'long enough' : lengthOf(toMicros - fromMicros);
}

function lengthOf(micros: number | undefined): string {
  return micros === undefined ? 'the time that its rule asked for' : formatDuration(micros);
}

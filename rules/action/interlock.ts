import { formatDuration } from '../../duration.ts';
import type { RuleAction } from './rule-action.ts';

/** What is known when an action is about to be taken. All times in milliseconds since 1970. */
export interface ActionFacts {
  readonly nowMs: number;
  /** When the step of the alert happened. */
  readonly stepMs: number;
  /** Commands of this action to this device in the last hour. */
  readonly sentInHour: number;
  /** The last of them; null: none within a day. */
  readonly lastSentMs: number | null;
  /** When the device said something last; null: never. */
  readonly heardMs: number | null;
  /** How many actions in a row led to this step: each sent a command to this device shortly before the next. */
  readonly depth: number;
}

/** Bounds of all actions. */
export interface ActionLimits {
  /** A step that is older is not acted upon any more. */
  readonly ageMaxMs: number;
  /** Actions in a row that may lead to each other. */
  readonly loopMax: number;
}

/** What keeps an action from being taken; a closed set, for a metric. */
export type ActionBlock = 'stale' | 'loop' | 'max_per_hour' | 'min_gap' | 'not_fresh';

/** @returns null when nothing keeps it. */
export function findBlock(
  action: RuleAction,
  facts: ActionFacts,
  limits: ActionLimits,
): { readonly block: ActionBlock; readonly reason: string } | null {
  const { nowMs, stepMs, sentInHour, lastSentMs, heardMs, depth } = facts;
  const ageMs = nowMs - stepMs;
  if (ageMs > limits.ageMaxMs) {
    const reason = `the step is ${seconds(ageMs)} old, at most ${seconds(limits.ageMaxMs)} is acted upon`;
    return { block: 'stale', reason };
  }
  if (depth > limits.loopMax) {
    const reason = `${depth} commands of rules in a row have each led to the next`;
    return { block: 'loop', reason };
  }
  if (sentInHour >= action.maxPerHour) {
    const reason = `${sentInHour} commands in the last hour, ${action.maxPerHour} allowed`;
    return { block: 'max_per_hour', reason };
  }
  if (lastSentMs !== null && nowMs - lastSentMs < action.minGapMicros / 1000) {
    const gap = formatDuration(action.minGapMicros);
    return {
      block: 'min_gap',
      reason: `the last command was ${seconds(nowMs - lastSentMs)} ago, ${gap} wanted`,
    };
  }
  if (action.freshMicros === null) return null;
  if (heardMs !== null && nowMs - heardMs <= action.freshMicros / 1000) return null;
  const heard = heardMs === null ? 'never' : `${seconds(nowMs - heardMs)} ago`;
  const fresh = formatDuration(action.freshMicros);
  return { block: 'not_fresh', reason: `the device was heard ${heard}, at most ${fresh} wanted` };
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
}

import { isDeepStrictEqual } from 'node:util';
import type { Precondition, ReadingCondition } from './command.ts';

/** The newest reading of a metric. */
export interface NewestReading {
  readonly value: number | string | boolean;
  readonly timeMs: number;
}

/** What is known of a device when a precondition is looked at. */
export interface DeviceFacts {
  /** The configuration that it said is in effect; null: it has not said. */
  readonly reported: Readonly<Record<string, unknown>> | null;
  readonly readings: ReadonlyMap<string, NewestReading>;
}

/** Whether a precondition holds. What is not known does not hold. Pure. */
export function holds(
  { reported = {}, readings = [] }: Precondition,
  facts: DeviceFacts,
  nowMs: number,
): boolean {
  const isReported = Object.entries(reported).every(
    ([name, value]) =>
      facts.reported !== null &&
      Object.hasOwn(facts.reported, name) &&
      isDeepStrictEqual(facts.reported[name], value),
  );
  return isReported && readings.every((condition) => readingHolds(condition, facts, nowMs));
}

function readingHolds(
  { metric, op, value, ageMaxMs }: ReadingCondition,
  { readings }: DeviceFacts,
  nowMs: number,
): boolean {
  const newest = readings.get(metric);
  if (newest === undefined) return false;
  if (ageMaxMs !== null && nowMs - newest.timeMs > ageMaxMs) return false;
  if (op === '==') return newest.value === value;
  if (op === '!=') return newest.value !== value;
  if (typeof newest.value !== 'number' || typeof value !== 'number') return false;
  return isOrdered(newest.value, op, value);
}

function isOrdered(left: number, op: '>' | '>=' | '<' | '<=', right: number): boolean {
  switch (op) {
    case '>':
      return left > right;
    case '>=':
      return left >= right;
    case '<':
      return left < right;
    case '<=':
      return left <= right;
  }
}

// HOT PATH: stepAlert once for each evaluation
import type { Level } from '../severity.ts';

/** The states of Prometheus. An alert that has fired and ended is `resolved` where it is stored. */
export type AlertPhase = 'inactive' | 'pending' | 'firing';

/** Since when a level holds, or no more than it, and what lies behind it. */
export interface Held {
  readonly level: Level;
  readonly since: number;
  /** Further away from the severity, and since later. */
  readonly next: Held | null;
}

/** Where an alert stands. Never changed in place: a step makes a new one, or gives back the same. */
export interface AlertState {
  readonly phase: AlertPhase;
  /** While pending: what it would fire as; while firing: its severity. 0 while inactive. */
  readonly level: Level;
  /** Since when the condition has held, in event time; null while inactive. */
  readonly activeAt: number | null;
  readonly firedAt: number | null;
  /** While firing: since when the condition has not held; null while it does. */
  readonly clearSince: number | null;
  /** Higher levels that hold, the lowest first; each becomes the severity once it has held for `for`. */
  readonly raise: Held | null;
  /** While firing: since when no more than this lower level has held, the highest first. */
  readonly lower: Held | null;
}

/** Nothing is wrong. */
export const INACTIVE: AlertState = {
  phase: 'inactive',
  level: 0,
  activeAt: null,
  firedAt: null,
  clearSince: null,
  raise: null,
  lower: null,
};

/** How long conditions must hold, in microseconds. */
export interface AlertTiming {
  readonly forMicros: number;
  readonly keepFiringForMicros: number;
}

/**
 * Advances an alert by one evaluation. Pure: a replay gives the alerts that the live stream gave. Gives
 * back the same object when nothing changed, so that the steady path allocates nothing.
 *
 * It does what as many alerts of Prometheus would do as there are levels, each with the condition that at
 * least this level holds, and with the same `for` and `keep_firing_for`; the severity is the worst that
 * fires. **inactive**: the condition starts to hold → pending, and with a `for` of 0 firing at once.
 * **pending**: it holds no more → inactive; it has held for `for` → firing. **firing**: it has not held
 * for `keep_firing_for` → inactive; a higher level has held for `for`, or nothing above a lower one for
 * `keep_firing_for` → another severity.
 *
 * @param level 0: the condition does not hold.
 * @param timeMicros event time; never before that of the step before.
 */
export function stepAlert(
  timing: AlertTiming,
  state: AlertState,
  level: Level,
  timeMicros: number,
): AlertState {
  switch (state.phase) {
    case 'inactive':
      return level === 0 ? state : begin(timing, level, timeMicros);
    case 'pending':
      return level === 0 ? INACTIVE : hold(timing, state, level, timeMicros);
    case 'firing': {
      if (level === 0) {
        if (state.clearSince !== null) return settle(timing, state, timeMicros);
        return settle(timing, { ...state, clearSince: timeMicros, raise: null }, timeMicros);
      }
      return settle(timing, breach(state, level, timeMicros), timeMicros);
    }
  }
}

/**
 * Takes the next timer of an alert, if it is due at or before a time: the last evaluation holds until
 * then. Call it again until it gives back the same object: several may be due, one behind the other.
 * Where a reading has the very time of a timer, {@link stepAlert} goes first, and does both.
 */
export function takeTimer(timing: AlertTiming, state: AlertState, timeMicros: number): AlertState {
  const deadline = deadlineOf(timing, state);
  if (deadline === null || deadline > timeMicros) return state;
  return state.phase === 'pending'
    ? fire(timing, state, deadline)
    : settle(timing, state, deadline);
}

/** When the next timer of an alert is due, in event time; null: it changes by evaluation only. */
export function deadlineOf(timing: AlertTiming, state: AlertState): number | null {
  if (state.phase === 'inactive') return null;
  if (state.phase === 'pending') return (state.activeAt ?? 0) + timing.forMicros;
  const { clearSince, raise, lower } = state;
  let deadline = Infinity;
  if (raise !== null) deadline = raise.since + timing.forMicros;
  if (lower !== null) deadline = Math.min(deadline, lower.since + timing.keepFiringForMicros);
  if (clearSince !== null) deadline = Math.min(deadline, clearSince + timing.keepFiringForMicros);
  return deadline === Infinity ? null : deadline;
}

function begin(timing: AlertTiming, level: Level, timeMicros: number): AlertState {
  const pending: AlertState = { ...INACTIVE, phase: 'pending', level, activeAt: timeMicros };
  return timing.forMicros > 0 ? pending : fire(timing, pending, timeMicros);
}

/** A pending alert whose condition holds. */
function hold(
  timing: AlertTiming,
  state: AlertState,
  level: Level,
  timeMicros: number,
): AlertState {
  let next = state;
  if (level > state.level) {
    const raise = climb(state.raise, level, timeMicros);
    if (raise !== state.raise) next = { ...state, raise };
  } else if (level < state.level || state.raise !== null) {
    next = { ...state, level, raise: null };
  }
  const isDue = timeMicros >= (state.activeAt ?? timeMicros) + timing.forMicros;
  return isDue ? fire(timing, next, timeMicros) : next;
}

function fire(timing: AlertTiming, state: AlertState, timeMicros: number): AlertState {
  return settle(timing, { ...state, phase: 'firing', firedAt: timeMicros }, timeMicros);
}

/** A firing alert whose condition holds: what of it is above its severity, and what below. */
function breach(state: AlertState, level: Level, timeMicros: number): AlertState {
  const raise = level > state.level ? climb(state.raise, level, timeMicros) : null;
  const lower =
    level < state.level ? sink(state.lower, level, state.clearSince ?? timeMicros) : null;
  if (raise === state.raise && lower === state.lower && state.clearSince === null) return state;
  return { ...state, raise, lower, clearSince: null };
}

/** Lets a firing alert rise, fall and end, as far as what it waits for has lasted long enough. */
function settle(timing: AlertTiming, state: AlertState, timeMicros: number): AlertState {
  const { clearSince } = state;
  if (clearSince !== null && timeMicros >= clearSince + timing.keepFiringForMicros) return INACTIVE;
  let { level, raise, lower } = state;
  while (raise !== null && timeMicros >= raise.since + timing.forMicros) {
    level = raise.level;
    raise = raise.next;
  }
  while (lower !== null && timeMicros >= lower.since + timing.keepFiringForMicros) {
    level = lower.level;
    lower = lower.next;
  }
  return level === state.level ? state : { ...state, level, raise, lower };
}

/** What has held at least, and since when, now that `level` holds. */
function climb(held: Held | null, level: Level, since: number): Held {
  if (held === null) return { level, since, next: null };
  if (held.level >= level) return cut(held, level);
  const next = climb(held.next, level, since);
  return next === held.next ? held : { ...held, next };
}

/** What has held at most, and since when, now that no more than `level` does. */
function sink(held: Held | null, level: Level, since: number): Held {
  if (held === null) return { level, since, next: null };
  if (held.level <= level) return cut(held, level);
  const next = sink(held.next, level, since);
  return next === held.next ? held : { ...held, next };
}

function cut(held: Held, level: Level): Held {
  if (held.level === level && held.next === null) return held;
  return { level, since: held.since, next: null };
}

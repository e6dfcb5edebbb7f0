import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  deadlineOf,
  INACTIVE,
  stepAlert,
  takeTimer,
  type AlertState,
  type AlertTiming,
} from '../../rules/alert/alert.ts';
import type { Level } from '../../rules/severity.ts';
import { PrometheusAlert } from '../support/prometheus-alert.ts';

const LEVELS: readonly Level[] = [1, 2, 3, 4, 5];

interface Evaluation {
  readonly time: number;
  readonly level: Level;
}

const level = fc.constantFrom<Level>(0, 1, 2, 3, 4, 5);
const timing = fc
  .tuple(fc.integer({ min: 0, max: 8 }), fc.integer({ min: 0, max: 8 }))
  .map(([forMicros, keepFiringForMicros]): AlertTiming => ({ forMicros, keepFiringForMicros }));
/** Times that rise by 0 to 6, which is about as long as `for` and `keep_firing_for` are. */
const evaluations = fc
  .array(fc.tuple(fc.integer({ min: 0, max: 6 }), level), { maxLength: 40 })
  .map((steps) => {
    let time = 1_700_000_000_000_000;
    return steps.map(([gap, of]): Evaluation => ({ time: (time += gap), level: of }));
  });

/** Takes every timer that is due before a time. */
function takeTimersBefore(of: AlertTiming, state: AlertState, time: number): AlertState {
  for (let next = state; ;) {
    const taken = takeTimer(of, next, time - 1);
    if (taken === next) return next;
    next = taken;
  }
}

/** The states behind each evaluation, with the timers between them. */
function replay(of: AlertTiming, all: readonly Evaluation[]): AlertState[] {
  let state = INACTIVE;
  return all.map(({ time, level: holds }) => {
    state = stepAlert(of, takeTimersBefore(of, state, time), holds, time);
    return state;
  });
}

/** What people see: the phase, and of a firing alert the severity. */
function seen({ phase, level: of }: AlertState): string {
  return phase === 'firing' ? `firing ${of}` : phase;
}

/** The same of one alert of Prometheus for each level. */
function seenOf(alerts: readonly PrometheusAlert[]): string {
  const worst = alerts.findLastIndex(({ state }) => state === 'firing');
  if (worst >= 0) return `firing ${worst + 1}`;
  return alerts.some(({ state }) => state === 'pending') ? 'pending' : 'inactive';
}

function prometheusOf({ forMicros, keepFiringForMicros }: AlertTiming): PrometheusAlert[] {
  return LEVELS.map(() => new PrometheusAlert(forMicros, keepFiringForMicros));
}

describe('an alert without timers', () => {
  it('is where one alert of Prometheus for each level is, the worst of them shown', () => {
    fc.assert(
      fc.property(timing, evaluations, (of, all) => {
        const alerts = prometheusOf(of);
        let state = INACTIVE;
        for (const { time, level: holds } of all) {
          state = stepAlert(of, state, holds, time);
          for (const [index, alert] of alerts.entries()) alert.evaluate(holds > index, time);
          expect(seen(state)).toBe(seenOf(alerts));
          if (state.phase !== 'inactive') expect(state.activeAt).toBe(alerts[0]?.activeAt);
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe('an alert with its timers', () => {
  it('is where Prometheus is that evaluates at every time there is, the last value holding', () => {
    fc.assert(
      fc.property(timing, evaluations, (of, all) => {
        const alerts = prometheusOf(of);
        let state = INACTIVE;
        let holds: Level = 0;
        let time = all[0]?.time ?? 0;
        const tick = (until: number): void => {
          for (; time < until; time += 1) {
            for (const [index, alert] of alerts.entries()) alert.evaluate(holds > index, time);
            state = takeTimersBefore(of, state, time + 1);
            expect(seen(state)).toBe(seenOf(alerts));
          }
        };
        for (const next of all) {
          tick(next.time);
          // At one time the last evaluation decides, but each of them has taken place.
          for (const [index, alert] of alerts.entries()) {
            alert.evaluate(next.level > index, next.time);
          }
          state = stepAlert(of, state, next.level, next.time);
          expect(seen(state)).toBe(seenOf(alerts));
          holds = next.level;
        }
        tick(time + 20);
      }),
      { numRuns: 2000 },
    );
  });

  it('never fires before its condition has held for `for`', () => {
    fc.assert(
      fc.property(timing, evaluations, (of, all) => {
        const states = replay(of, all);
        let sinceMicros: number | null = null;
        for (const [index, { time, level: holds }] of all.entries()) {
          const state = states[index] ?? INACTIVE;
          const wasHeld = sinceMicros !== null && time - sinceMicros >= of.forMicros;
          sinceMicros = holds === 0 ? null : (sinceMicros ?? time);
          const isFresh = state.phase === 'firing' && states[index - 1]?.phase !== 'firing';
          if (!isFresh) continue;
          // Held until now, or longer than that with a timer in between.
          expect(wasHeld || (sinceMicros !== null && of.forMicros === 0)).toBe(true);
          expect(state.firedAt).toBeGreaterThanOrEqual((state.activeAt ?? NaN) + of.forMicros);
        }
      }),
    );
  });

  it('ends only after its condition has not held for `keep_firing_for`', () => {
    fc.assert(
      fc.property(timing, evaluations, (of, all) => {
        const states = replay(of, all);
        for (const [index, state] of states.entries()) {
          const before = states[index - 1];
          const at = all[index] as Evaluation;
          if (before?.phase !== 'firing') continue;
          if (state.phase === 'firing' && state.firedAt === before.firedAt) continue;
          const clear = all.slice(0, index + 1).findLastIndex(({ level: holds }) => holds > 0);
          const since = all[clear === index ? index : clear + 1]?.time ?? at.time;
          const held = clear === index ? (before.clearSince ?? at.time) : since;
          expect(at.time - held).toBeGreaterThanOrEqual(of.keepFiringForMicros);
        }
      }),
    );
  });

  it('is never of a worse severity than what has held', () => {
    fc.assert(
      fc.property(timing, evaluations, (of, all) => {
        let worst = 0;
        for (const [index, state] of replay(of, all).entries()) {
          worst = Math.max(worst, all[index]?.level ?? 0);
          expect(state.level).toBeLessThanOrEqual(worst);
          for (let held = state.raise; held !== null; held = held.next) {
            expect(held.level).toBeGreaterThan(state.level);
            expect(held.level).toBeLessThanOrEqual(worst);
          }
          for (let held = state.lower; held !== null; held = held.next) {
            expect(held.level).toBeLessThan(state.level);
          }
        }
      }),
    );
  });

  it('comes out the same however often timers are asked for between readings', () => {
    const asked = fc.array(fc.integer({ min: 0, max: 30 }), { maxLength: 8 });
    fc.assert(
      fc.property(timing, evaluations, asked, (of, all, offsets) => {
        let state = INACTIVE;
        const often = all.map(({ time, level: holds }, index) => {
          const from = all[index - 1]?.time ?? time;
          for (const offset of offsets.toSorted((one, other) => one - other)) {
            if (from + offset < time) state = takeTimersBefore(of, state, from + offset + 1);
          }
          state = stepAlert(of, takeTimersBefore(of, state, time), holds, time);
          return state;
        });
        expect(often).toEqual(replay(of, all));
      }),
    );
  });

  it('comes out the same when the level that holds is evaluated again in between', () => {
    const extra = fc.array(fc.boolean(), { minLength: 40, maxLength: 40 });
    fc.assert(
      fc.property(timing, evaluations, extra, (of, all, isDoubled) => {
        const more = all.flatMap((one, index): Evaluation[] => {
          const next = all[index + 1];
          const isBetween = isDoubled[index] === true && next !== undefined;
          if (!isBetween || next.time - one.time < 2) return [one];
          return [one, { time: one.time + 1, level: one.level }];
        });
        expect(replay(of, more).at(-1)).toEqual(replay(of, all).at(-1));
      }),
    );
  });

  it('gives back the same object when nothing changes, and another when something does', () => {
    fc.assert(
      fc.property(timing, evaluations, (of, all) => {
        let state = INACTIVE;
        for (const { time, level: holds } of all) {
          const next = stepAlert(of, state, holds, time);
          expect(next === state).toBe(JSON.stringify(next) === JSON.stringify(state));
          expect(stepAlert(of, next, holds, time)).toBe(next);
          const taken = takeTimer(of, next, time);
          expect(taken).toBe(next);
          state = next;
        }
      }),
    );
  });

  it('has a state that is the same after it was stored as JSON, without NaN', () => {
    fc.assert(
      fc.property(timing, evaluations, (of, all) => {
        for (const state of replay(of, all)) {
          expect(JSON.parse(JSON.stringify(state))).toEqual(state);
          const deadline = deadlineOf(of, state);
          expect(deadline === null || Number.isInteger(deadline)).toBe(true);
          expect(state.phase === 'inactive').toBe(state.activeAt === null);
          expect(state.phase === 'firing').toBe(state.firedAt !== null);
        }
      }),
    );
  });

  it('always has a timer while it is pending, and while its condition does not hold', () => {
    fc.assert(
      fc.property(timing, evaluations, (of, all) => {
        for (const state of replay(of, all)) {
          const hasTimer = deadlineOf(of, state) !== null;
          const isWaiting = state.phase === 'pending' || state.clearSince !== null;
          const moves = isWaiting || state.raise !== null || state.lower !== null;
          expect(hasTimer).toBe(moves);
        }
      }),
    );
  });
});

describe('the severity of an alert', () => {
  const of: AlertTiming = { forMicros: 10, keepFiringForMicros: 20 };
  const after = (...steps: readonly [number, Level][]): AlertState =>
    replay(of, [...steps.map(([time, holds]) => ({ time, level: holds }))]).at(-1) ?? INACTIVE;

  it('is at first what has held for all of `for`', () => {
    expect(after([0, 2], [4, 5], [10, 5])).toMatchObject({ phase: 'firing', level: 2 });
  });

  it('rises to each level once that has held for `for`, one after the other', () => {
    const steps: [number, Level][] = [
      [0, 2],
      [4, 3],
      [6, 5],
    ];
    expect(after(...steps, [13, 5])).toMatchObject({ level: 2 });
    expect(after(...steps, [14, 5])).toMatchObject({ level: 3 });
    expect(after(...steps, [16, 5])).toMatchObject({ level: 5, raise: null });
  });

  it('does not rise to a level that did not hold throughout', () => {
    expect(after([0, 2], [4, 5], [6, 3], [8, 5], [14, 5])).toMatchObject({ level: 3 });
    expect(after([0, 2], [4, 5], [6, 3], [8, 5], [18, 5])).toMatchObject({ level: 5 });
  });

  it('falls to the highest that has held within `keep_firing_for`', () => {
    const steps: [number, Level][] = [
      [0, 5],
      [10, 5],
      [11, 2],
      [15, 3],
      [16, 1],
    ];
    expect(after(...steps, [30, 1])).toMatchObject({ level: 5 });
    expect(after(...steps, [31, 1])).toMatchObject({ level: 3 });
    expect(after(...steps, [36, 1])).toMatchObject({ level: 1, lower: null });
  });

  it('falls on although the condition does not hold at the moment', () => {
    expect(after([0, 5], [10, 5], [11, 2], [25, 0], [31, 0])).toMatchObject({
      phase: 'firing',
      level: 2,
      clearSince: 25,
    });
  });
});

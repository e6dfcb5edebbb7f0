import fc from 'fast-check';
import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import type { CompiledRule } from '../../rules/compiled-rule.ts';
import type {
  OpenAlert,
  SettledAlert,
  StoredEvent,
  StoredReading,
} from '../../rules/evaluation/device-load.ts';
import { RuleEvaluator } from '../../rules/evaluation/evaluator.ts';
import type { Transition } from '../../rules/alert/transition.ts';
import { DEVICE, EvaluatedDevice, loadedOf, ruleOf, stepOf } from '../support/evaluation.ts';

const SECOND = 1_000_000;
const START_S = 1_800_000_000;
const SLACK_MS = 1000;
/** So much of what was received before the checkpoint is evaluated again. */
const MARGIN_S = 5;

const RULES: readonly CompiledRule[] = [
  ruleOf({}, { ruleId: 1 }),
  ruleOf(
    { for: '7s', keepFiringFor: '5s', when: { metric: 'temp', op: '>', value: 80, clear: 60 } },
    { ruleId: 2 },
  ),
  ruleOf(
    {
      for: '3s',
      severity: 'low',
      levels: [{ severity: 'critical', when: { metric: 'temp', op: '>', value: 90 } }],
      keepFiringFor: '4s',
    },
    { ruleId: 3 },
  ),
  ruleOf(
    { when: { metric: 'temp', window: '10s', fn: 'avg', op: '>', value: 70 }, for: '2s' },
    { ruleId: 4 },
  ),
  ruleOf(
    { when: { metric: 'temp', op: '>', value: 75, of: { n: 2, m: 3 } }, late: 'ignore' },
    { ruleId: 5 },
  ),
  ruleOf(
    { when: { metric: 'temp', op: '>', other: 'setpoint', plus: 5 }, allowedLateness: '3s' },
    { ruleId: 6 },
  ),
  ruleOf({ groupBy: 'recipe', keepFiringFor: '6s' }, { ruleId: 7 }),
  ruleOf({ when: { event: 'fault', holds: '4s' }, groupBy: 'code' }, { ruleId: 8 }),
  ruleOf(
    {
      when: {
        all: [
          { event: 'fault', holds: '9s' },
          { metric: 'temp', op: '>', value: 70 },
        ],
      },
      for: '2s',
    },
    { ruleId: 9 },
  ),
];

interface Reading {
  readonly atS: number;
  readonly values: Readonly<Record<string, number | string>>;
  /** Code of an event of that time; null when there was none. */
  readonly fault: number | null;
}

const day = fc
  .array(
    fc.record({
      gapMs: fc.integer({ min: 100, max: 9000 }),
      temp: fc.integer({ min: 40, max: 100 }),
      setpoint: fc.option(fc.integer({ min: 60, max: 90 }), { nil: undefined }),
      fault: fc.option(fc.constantFrom(1, 2), { freq: 3 }),
      recipe: fc.option(fc.constantFrom('A', 'B'), { nil: undefined }),
    }),
    { minLength: 1, maxLength: 60 },
  )
  .map((readings) => {
    let atMs = START_S * 1000;
    return readings.map(({ gapMs, temp, setpoint, recipe, fault }): Reading => {
      atMs += gapMs;
      const more = {
        ...(setpoint === undefined ? {} : { setpoint }),
        ...(recipe === undefined ? {} : { recipe }),
      };
      return { atS: atMs / 1000, values: { temp, ...more }, fault };
    });
  });

const at = (s: number, temp: number, fault: number | null = null): Reading => ({
  atS: START_S + s,
  values: { temp },
  fault,
});
/** At 9.1 s an alert of rule 9 ends with the reading, and another begins with the event of that time. */
const ENDED_AND_BEGUN_AT_ONCE = [
  at(0.1, 71, 1),
  at(8.991, 71),
  at(9.1, 71, 1),
  at(9.2, 71),
  at(10.101, 40),
];

/** Steps by the key that they are recorded under; the same key twice must be the same step. */
function recordOf(transitions: readonly Transition[]): Map<string, string> {
  const record = new Map<string, string>();
  for (const transition of transitions) {
    const key = `${transition.alertId} ${transition.sequence}`;
    const text = `${stepOf(transition)} ${transition.severity} ${transition.reason}`;
    expect(record.get(key) ?? text).toBe(text);
    record.set(key, text);
  }
  return record;
}

function stepsOf(transitions: readonly Transition[]): string[] {
  return [...recordOf(transitions)].map((entry) => entry.join(': ')).toSorted();
}

function feed(device: EvaluatedDevice, { atS, values, fault }: Reading): void {
  device.sample(atS, values);
  if (fault !== null) device.event(atS, 'fault', { code: fault });
}

/** All of a day at once, as a backtest does it. */
function replay(readings: readonly Reading[], endS: number): Transition[] {
  const device = new EvaluatedDevice(RULES);
  for (const reading of readings) feed(device, reading);
  return device.timers(endS).transitions;
}

describe('live evaluation and a replay', () => {
  it('make the same steps, however it was held up', async () => {
    const hindrance = fc.record({
      delayMs: fc.integer({ min: 0, max: SLACK_MS - 1 }),
      isFull: fc.boolean(),
      isTicking: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(
        day,
        fc.array(hindrance, { minLength: 60, maxLength: 60 }),
        async (readings, hindrances) => {
          const live: Transition[] = [];
          let nowMs = START_S * 1000;
          let isFull = false;
          const evaluator = new RuleEvaluator({
            loader: { load: () => Promise.resolve([loadedOf()]) },
            alertLog: {
              append: (transition) => live.push(transition),
              get isFull() {
                return isFull;
              },
              isAway: false,
              noteEvaluated: () => undefined,
              drain: () => Promise.resolve(),
            },
            findDevices: () => Promise.resolve([]),
            noData: null,
            onSuspend: (_ruleId, reason) => expect.fail(reason),
            now: () => nowMs,
            limits: { evaluationUsMax: 1e6, timerSlackMs: SLACK_MS, deviceReadingsHeldMax: 1000 },
            log: pino({ level: 'silent' }),
          });
          evaluator.replaceRules(RULES);
          for (const [index, { atS, values, fault }] of readings.entries()) {
            const { delayMs, isTicking } = hindrances[index] ?? { delayMs: 0, isTicking: true };
            isFull = hindrances[index]?.isFull ?? false;
            nowMs = Math.max(nowMs, atS * 1000 + delayMs);
            const timeMicros = atS * SECOND;
            for (const [metric, value] of Object.entries(values)) {
              const series = evaluator.seriesOf(1, DEVICE.deviceId, metric);
              if (typeof value === 'string') evaluator.reading(series, timeMicros, null, value);
              else evaluator.reading(series, timeMicros, value, null);
            }
            const receivedMicros = nowMs * 1000;
            const times = { timeMicros, receivedMicros, isLive: true };
            evaluator.sampleEnd(7, times);
            if (fault !== null) {
              evaluator.event(DEVICE, { ...times, name: 'fault', content: `{"code":${fault}}` });
            }
            if (isTicking) evaluator.tick();
            if (index % 7 === 0) await new Promise((done) => setImmediate(done));
          }
          for (let turn = 0; turn < 5; turn += 1) await new Promise((done) => setImmediate(done));
          isFull = false;
          const endS = (readings.at(-1)?.atS ?? 0) + 60;
          nowMs = endS * 1000 + SLACK_MS;
          evaluator.tick();
          evaluator.tick();
          await evaluator.stop();
          expect(stepsOf(live)).toEqual(stepsOf(replay(readings, endS)));
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe('a crash', () => {
  it('changes no step, makes none twice and loses none [L-03]', () => {
    fc.assert(
      fc.property(
        day,
        fc.nat(),
        fc.nat({ max: 5 }),
        fc.nat({ max: 5 }),
        (readings, crashAt, recordedBefore, checkpointBefore) => {
          const crash = crashAt % readings.length;
          const recorded = Math.max(crash - recordedBefore, 0);
          const checkpoint = Math.max(recorded - checkpointBefore, 0);
          const before = new EvaluatedDevice(RULES);
          let onRecord = 0;
          for (const [index, reading] of readings.slice(0, crash).entries()) {
            feed(before, reading);
            // The wall clock goes on to the next reading.
            before.timers((readings[index + 1]?.atS ?? 0) - SLACK_MS / 1000);
            if (index < recorded) onRecord = before.transitions.length;
          }
          const kept = before.transitions.slice(0, onRecord);
          const after = new EvaluatedDevice(RULES);
          const catchUpFromMicros = ((readings[checkpoint]?.atS ?? 0) - MARGIN_S) * SECOND;
          after.evaluation.load(
            loadedOf({
              open: openOf(kept),
              settled: settledOf(kept, catchUpFromMicros),
              history: readings.slice(0, crash).flatMap(storedOf),
              events: readings.slice(0, crash).flatMap(eventsOf),
              catchUpFromMicros,
            }),
          );
          for (const reading of readings.slice(crash)) feed(after, reading);
          const endS = (readings.at(-1)?.atS ?? 0) + 60;
          after.timers(endS);
          expect(stepsOf([...kept, ...after.transitions])).toEqual(stepsOf(replay(readings, endS)));
        },
      ),
      { numRuns: 300, examples: [[ENDED_AND_BEGUN_AT_ONCE, 3, 0, 0]] },
    );
  });
});

function storedOf({ atS, values }: Reading): StoredReading[] {
  return Object.entries(values).map(([metric, value]) => ({
    metric,
    timeMicros: atS * SECOND,
    value: typeof value === 'string' ? NaN : value,
    text: typeof value === 'string' ? value : null,
  }));
}

function eventsOf({ atS, fault }: Reading): StoredEvent[] {
  if (fault === null) return [];
  return [{ name: 'fault', timeMicros: atS * SECOND, content: { code: fault } }];
}

function lastOf(transitions: readonly Transition[]): Transition[] {
  return [...new Map(transitions.map((each) => [each.alertId, each])).values()];
}

function openOf(transitions: readonly Transition[]): OpenAlert[] {
  return lastOf(transitions)
    .filter(({ to }) => to !== 'inactive')
    .map((each) => ({ ...each, changedMicros: each.atMicros }));
}

function settledOf(transitions: readonly Transition[], fromMicros: number): SettledAlert[] {
  return lastOf(transitions)
    .filter(({ to, atMicros }) => to === 'inactive' && atMicros >= fromMicros)
    .map(({ ruleId, groupKey, atMicros }) => ({ ruleId, groupKey, untilMicros: atMicros }));
}

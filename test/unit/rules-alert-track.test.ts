import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { alertIdOf } from '../../rules/alert/alert-id.ts';
import { AlertTrack, SETTLE_MICROS } from '../../rules/alert/alert-steps.ts';
import type { CompiledRule, EvaluationContext, Operand } from '../../rules/compiled-rule.ts';
import type { OpenAlert, RuleDevice } from '../../rules/evaluation/device-load.ts';
import type { RuleDefinition } from '../../rules/rule.ts';
import type { Level } from '../../rules/severity.ts';
import type { Transition } from '../../rules/alert/transition.ts';

const START = 1_700_000_000_000_000;
const SECOND = 1_000_000;
const DEVICE: RuleDevice = {
  deviceId: 7,
  organizationId: 3,
  slug: 'boiler-1',
  tags: [],
  type: null,
};

interface RuleParts {
  readonly forS?: number;
  readonly keepS?: number;
  readonly operands?: number;
  readonly more?: Partial<CompiledRule>;
}

function ruleOf({ forS = 0, keepS = 0, operands = 1, more = {} }: RuleParts): CompiledRule {
  const definition: RuleDefinition = {
    name: 'too hot',
    description: '',
    mode: 'enabled',
    scope: {},
    severity: 'info',
    when: { kind: 'cel', expression: 'true' },
    levels: [],
    forMicros: forS * SECOND,
    keepFiringForMicros: keepS * SECOND,
    late: 'current-only',
    allowedLatenessMicros: 0,
    groupBy: null,
    labels: { site: 'north' },
    annotations: { summary: '{{device}} is at {{value}} ({{severity}})' },
    suppressedBy: [],
    noiseBudgetPerDay: null,
    actions: [],
  };
  return {
    ruleId: 11,
    publicId: '',
    organizationId: 3,
    name: 'too hot',
    version: 4,
    mode: 'enabled',
    definition,
    metrics: ['temp'],
    events: [],
    usesConnection: false,
    noData: null,
    tickMicros: null,
    historyMicros: 0,
    historySamples: 0,
    changesAt: () => Infinity,
    restoreMemory: () => undefined,
    createMemory: () => [],
    evaluate: () => 0,
    isUnknown: () => false,
    operands: ({ series: [temp] }) =>
      Array.from({ length: operands }, (): Operand => ({
        name: 'temp',
        value: temp?.value ?? null,
        timeMicros: temp?.timeMicros ?? null,
        against: '> 80',
        holds: true,
      })),
    ...more,
  };
}

interface Bench {
  readonly track: AlertTrack;
  /** The newest reading, as it is known after a restart. */
  readonly know: (atS: number, level: Level) => void;
  /** An evaluation so many seconds after the start, with a value that shows the level. */
  readonly step: (atS: number, level: Level) => readonly Transition[];
  readonly takeTimer: (atS: number) => readonly Transition[];
  readonly context: EvaluationContext & { silence: 'silent' | null };
}

function benchOf(rule: CompiledRule, open: OpenAlert | null = null, groupKey = ''): Bench {
  const temp = { metric: 'temp', timeMicros: -Infinity, value: NaN, text: null };
  const context: Bench['context'] = {
    timeMicros: -Infinity,
    series: [temp],
    memory: [],
    event: null,
    connection: 'online',
    silence: null,
    fleet: { value: () => NaN },
  };
  const track = new AlertTrack(rule, DEVICE, { groupKey, context, open });
  const know = (atS: number, level: Level): void => {
    temp.timeMicros = START + atS * SECOND;
    temp.value = level * 10;
  };
  return {
    track,
    context,
    know,
    step(atS, level) {
      know(atS, level);
      return track.step(level, temp.timeMicros);
    },
    takeTimer: (atS) => track.takeTimer(START + atS * SECOND),
  };
}

const briefOf = ({ sequence, from, to, reason, atMicros, severity }: Transition): string =>
  `${sequence} ${from}→${to} ${reason} at ${(atMicros - START) / SECOND} s, ${severity}`;
const brief = (made: readonly Transition[]): string[] => made.map(briefOf);

describe('the id of an alert', () => {
  it('is the same for the same rule, device, group key and time, and another for any other', () => {
    const id = alertIdOf(1, 2, 'a', START);
    expect(alertIdOf(1, 2, 'a', START)).toBe(id);
    const others = [
      alertIdOf(2, 2, 'a', START),
      alertIdOf(1, 3, 'a', START),
      alertIdOf(1, 2, 'b', START),
      alertIdOf(1, 2, 'a', START + 1),
      alertIdOf(12, 2, 'a', START),
      alertIdOf(1, 22, 'a', START),
    ];
    expect(new Set([id, ...others]).size).toBe(7);
  });

  it('is a UUID of version 8 that sorts by the time at which the alert became active', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.maxSafeNat(), fc.string(), (one, other, key) => {
        const [first, second] = [alertIdOf(1, 2, key, one), alertIdOf(1, 2, key, other)];
        expect(first).toMatch(
          /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
        );
        const [ms, otherMs] = [Math.floor(one / 1000), Math.floor(other / 1000)];
        if (ms < otherMs) expect(first < second).toBe(true);
      }),
    );
  });
});

describe('the transitions of an alert', () => {
  it('are none, and the same empty array, while nothing happens', () => {
    const { step, takeTimer } = benchOf(ruleOf({ forS: 2 }));
    const none = step(0, 0);
    expect(none).toEqual([]);
    expect(step(1, 0)).toBe(none);
    expect(takeTimer(2)).toBe(none);
  });

  it('are one when it fires at once', () => {
    const { step, track } = benchOf(ruleOf({}));
    const made = step(0, 3);
    expect(brief(made)).toEqual(['0 inactive→firing condition_holds at 0 s, medium']);
    expect(made[0]).toMatchObject({
      alertId: alertIdOf(11, 7, '', START),
      organizationId: 3,
      ruleId: 11,
      ruleVersion: 4,
      deviceId: 7,
      value: 30,
      occurrences: 1,
      labels: { site: 'north' },
      annotations: { summary: 'boiler-1 is at 30 (medium)' },
      isShadow: false,
      isHistorical: false,
      state: track.state,
    });
    expect(made[0]?.operands).toHaveLength(1);
    expect(brief(step(5, 0))).toEqual(['1 firing→inactive condition_cleared at 5 s, medium']);
  });

  it('record a pending alert once it has been that for a second, with what was seen when it began', () => {
    const { step, takeTimer, track } = benchOf(ruleOf({ forS: 5 }));
    expect(step(0, 2)).toEqual([]);
    expect(track.deadline).toBe(START + SETTLE_MICROS);
    step(0.5, 4);
    const made = takeTimer(1);
    expect(brief(made)).toEqual(['0 inactive→pending condition_holds at 0 s, low']);
    expect(made[0]).toMatchObject({ value: 20, occurrences: 0 });
    expect(made[0]?.state.raise).toEqual({ level: 4, since: START + 0.5 * SECOND, next: null });
    expect(brief(takeTimer(5))).toEqual(['1 pending→firing for_elapsed at 5 s, low']);
    expect(brief(takeTimer(60))).toEqual(['2 firing→firing severity_raised at 5.5 s, high']);
  });

  it('record a pending alert with its firing when that comes first', () => {
    const { step, takeTimer } = benchOf(ruleOf({ forS: 0.5 }));
    step(0, 2);
    expect(brief(takeTimer(10))).toEqual([
      '0 inactive→pending condition_holds at 0 s, low',
      '1 pending→firing for_elapsed at 0.5 s, low',
    ]);
  });

  it('cost nothing while a value flaps faster than `for` [L-01]', () => {
    const { step } = benchOf(ruleOf({ forS: 2 }));
    const made = [];
    for (let at = 0; at < 600; at += 0.1) made.push(...step(at, at % 0.2 < 0.1 ? 5 : 0));
    expect(made).toEqual([]);
  });

  it('are one firing and one end for a value that flaps within `keep_firing_for` [L-01]', () => {
    const { step, takeTimer } = benchOf(ruleOf({ keepS: 60 }));
    const made = [];
    for (let index = 0; index < 6000; index += 1) {
      made.push(...step(index / 10, index % 2 === 0 ? 5 : 0));
    }
    made.push(...takeTimer(1000));
    expect(brief(made)).toEqual([
      '0 inactive→firing condition_holds at 0 s, critical',
      '1 firing→firing condition_cleared at 599.9 s, critical',
      '2 firing→inactive keep_firing_for_elapsed at 659.9 s, critical',
    ]);
    // As one occurrence, which a crash within it does not change.
    expect(made.at(-1)?.occurrences).toBe(1);
  });

  it('tell that it fires again within `keep_firing_for`', () => {
    const { step, takeTimer } = benchOf(ruleOf({ keepS: 60 }));
    step(0, 5);
    expect(step(10, 0)).toEqual([]);
    expect(brief(takeTimer(30))).toEqual(['1 firing→firing condition_cleared at 10 s, critical']);
    const made = step(40, 5);
    expect(brief(made)).toEqual(['2 firing→firing fired_again at 40 s, critical']);
    expect(made[0]?.occurrences).toBe(2);
    expect(takeTimer(1000)).toEqual([]);
  });

  it('take the timers that are due before a reading first, and at their own times', () => {
    const { step } = benchOf(ruleOf({ forS: 2, keepS: 3 }));
    step(0, 1);
    expect(brief(step(10, 0))).toEqual([
      '0 inactive→pending condition_holds at 0 s, info',
      '1 pending→firing for_elapsed at 2 s, info',
    ]);
    expect(brief(step(13, 4))).toEqual([
      '2 firing→firing condition_cleared at 10 s, info',
      '3 firing→firing fired_again at 13 s, info',
    ]);
  });

  it('evaluate a reading at the very time of a timer before that', () => {
    const { step, takeTimer } = benchOf(ruleOf({ forS: 2 }));
    step(0, 1);
    expect(brief(step(2, 0))).toEqual([
      '0 inactive→pending condition_holds at 0 s, info',
      '1 pending→inactive condition_cleared at 2 s, info',
    ]);
    expect(takeTimer(1000)).toEqual([]);
  });

  it('hold sixteen operands at most', () => {
    const { step } = benchOf(ruleOf({ operands: 40 }));
    expect(step(0, 1)[0]?.operands).toHaveLength(16);
  });

  it('say that no data is why, when the rule looks for that and the device is silent', () => {
    const noData = { afterMicros: 5, kinds: ['silent'] } as const;
    const bench = benchOf(ruleOf({ more: { noData } }));
    bench.context.silence = 'silent';
    expect(bench.step(0, 1)[0]?.reason).toBe('no_data');
  });

  it('are of a shadow when the rule is one', () => {
    expect(benchOf(ruleOf({ more: { mode: 'shadow' } })).step(0, 1)[0]?.isShadow).toBe(true);
  });

  it('have no NaN and no Infinity in them', () => {
    const { track } = benchOf(ruleOf({}));
    const [made] = track.step(1, START);
    expect(made?.value).toBeNull();
    expect(JSON.parse(JSON.stringify(made?.state))).toEqual(made?.state);
    expect(made?.annotations).toEqual({ summary: 'boiler-1 is at none (info)' });
  });
});

describe('an alert that is ended', () => {
  it('is so by whoever ends it, once', () => {
    const { step, track } = benchOf(ruleOf({}));
    step(0, 2);
    const at = START + 5 * SECOND;
    expect(brief(track.end('resolved_by_hand', at))).toEqual([
      '1 firing→inactive resolved_by_hand at 5 s, low',
    ]);
    expect(track.end('resolved_by_hand', at)).toEqual([]);
    expect(track.isIdle).toBe(true);
  });

  it('leaves nothing behind when nothing of it was recorded', () => {
    const { step, track } = benchOf(ruleOf({ forS: 5 }));
    step(0, 2);
    expect(track.end('rule_deleted', START)).toEqual([]);
    expect(track.deadline).toBe(Infinity);
    expect(track.isIdle).toBe(true);
  });

  it('goes on with its numbers when another begins at the time at which it had begun [L-03]', () => {
    const { step, track } = benchOf(ruleOf({}));
    const first = step(0, 2);
    step(0, 0);
    expect(track.isIdle).toBe(false);
    const again = step(0, 3);
    expect(again[0]?.alertId).toBe(first[0]?.alertId);
    expect(brief(again)).toEqual(['2 inactive→firing condition_holds at 0 s, medium']);
    expect(again[0]?.occurrences).toBe(2);
    step(1, 0);
    expect(track.isIdle).toBe(true);
    expect(step(2, 3)[0]).toMatchObject({ sequence: 0, occurrences: 1 });
  });

  it('can be forgotten once time has gone on', () => {
    const { step, track } = benchOf(ruleOf({}));
    step(0, 2);
    step(0, 0);
    expect(track.isIdle).toBe(false);
    step(1, 0);
    expect(track.isIdle).toBe(true);
  });
});

describe('an alert that is restored', () => {
  it('goes on with its id, its numbers and its timers', () => {
    const rule = ruleOf({ forS: 10 });
    const { step, takeTimer, track } = benchOf(rule);
    step(0, 2);
    const [pending] = takeTimer(1);
    const { open } = track;
    expect(open).toMatchObject({ sequence: 0, alertId: pending?.alertId });
    const next = benchOf(rule, open);
    expect(next.track.deadline).toBe(START + 10 * SECOND);
    const made = next.takeTimer(100);
    expect(brief(made)).toEqual(['1 pending→firing for_elapsed at 10 s, low']);
    expect(made[0]?.alertId).toBe(pending?.alertId);
  });

  it('keeps the start of an alert of which nothing is recorded yet', () => {
    const { step, track } = benchOf(ruleOf({ forS: 10 }));
    step(0, 2);
    const next = benchOf(ruleOf({ forS: 20 }), track.open);
    expect(brief(next.takeTimer(100))).toEqual([
      '0 inactive→pending condition_holds at 0 s, low',
      '1 pending→firing for_elapsed at 20 s, low',
    ]);
  });

  it('takes no notice of evaluations that are in its state already [L-03]', () => {
    const rule = ruleOf({});
    const { step, track } = benchOf(rule);
    step(10, 5);
    const next = benchOf(rule, track.open);
    expect(next.step(3, 0)).toEqual([]);
    expect(next.step(10, 5)).toEqual([]);
    expect(next.track.state.phase).toBe('firing');
    expect(brief(next.step(11, 0))).toEqual([
      '1 firing→inactive condition_cleared at 11 s, critical',
    ]);
  });

  /** In tenths of a second, so that some gaps are shorter and some longer than what settles. */
  const walk = fc
    .array(fc.tuple(fc.integer({ min: 1, max: 30 }), fc.constantFrom<Level>(0, 0, 1, 2, 3, 4, 5)), {
      maxLength: 30,
    })
    .map((steps) => {
      let tenths = 0;
      return steps.map(([gap, of]) => [(tenths += gap) / 10, of] as const);
    });
  const seconds = fc.constantFrom(0, 0.5, 1, 2, 5);

  it('makes the transitions that it would have made, from any record of it on [L-03]', () => {
    fc.assert(
      fc.property(walk, seconds, seconds, fc.nat(), (steps, forS, keepS, cut) => {
        const rule = ruleOf({ forS, keepS });
        const whole = benchOf(rule);
        const all = steps.flatMap(([at, of]) => [...whole.step(at, of)]);
        all.push(...whole.takeTimer(1000));
        fc.pre(all.length > 0);
        const kept = all[cut % all.length] as Transition;
        fc.pre(kept.to !== 'inactive');
        const open: OpenAlert = JSON.parse(
          JSON.stringify({ ...kept, changedMicros: kept.atMicros }),
        );
        const restored = benchOf(rule, open);
        // All that was received in the seconds before the end is evaluated again.
        const again = steps.filter(([at]) => START + at * SECOND > kept.atMicros - 2 * SECOND);
        const known = steps.findLast((one) => !again.includes(one));
        if (known !== undefined) restored.know(...known);
        const made = again.flatMap(([at, of]) => [...restored.step(at, of)]);
        made.push(...restored.takeTimer(1000));
        const expected = all.slice(all.indexOf(kept) + 1);
        expect(made).toEqual(expected);
      }),
      { numRuns: 1000 },
    );
  });

  it('numbers transitions without a gap, in order of time, one open alert at a time', () => {
    fc.assert(
      fc.property(walk, seconds, seconds, (steps, forS, keepS) => {
        const { step, takeTimer } = benchOf(ruleOf({ forS, keepS }));
        const all = [...steps.flatMap(([at, of]) => [...step(at, of)]), ...takeTimer(1000)];
        let before: Transition | null = null;
        for (const next of all) {
          const isBegin = next.from === 'inactive';
          expect(next.from).toBe(before?.to ?? 'inactive');
          expect(next.sequence).toBe(isBegin ? 0 : (before?.sequence ?? -1) + 1);
          if (!isBegin) expect(next.alertId).toBe(before?.alertId);
          expect(next.atMicros).toBeGreaterThanOrEqual(before?.atMicros ?? -Infinity);
          expect(next.state.phase).toBe(next.to);
          if (next.to === 'firing' && next.from === 'pending') {
            expect(next.atMicros).toBe((next.state.activeAt ?? 0) + forS * SECOND);
          }
          before = next;
        }
      }),
      { numRuns: 1000 },
    );
  });
});

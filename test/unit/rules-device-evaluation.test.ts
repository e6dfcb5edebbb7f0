import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { LateReading } from '../../rules/evaluation/device-evaluation.ts';
import { GROUPS_MAX } from '../../rules/evaluation/rule-groups.ts';
import { EvaluatedDevice, loadedOf, ruleOf, stepOf } from '../support/evaluation.ts';

const SECOND = 1_000_000;

describe('evaluation of a device', () => {
  it('looks at a rule once for a sample, with all readings of it', () => {
    const rule = ruleOf({
      when: {
        all: [
          { metric: 'temp', op: '>', value: 80 },
          { metric: 'flow', op: '<', value: 1 },
        ],
      },
    });
    let evaluations = 0;
    const counted = {
      ...rule,
      evaluate: (context: Parameters<typeof rule.evaluate>[0]) => {
        evaluations += 1;
        return rule.evaluate(context);
      },
    };
    const device = new EvaluatedDevice([counted]);
    device.sample(1, { temp: 90, flow: 5 }).sample(2, { temp: 90, flow: 0, other: 1 });
    expect(evaluations).toBe(2);
    expect(device.steps).toEqual(['1 inactive → firing at 2']);
  });

  it('has no handle for a metric that no rule looks at', () => {
    const device = new EvaluatedDevice([ruleOf()]);
    expect(device.evaluation.series('flow')).toBeNull();
    expect(device.evaluation.series('temp')).not.toBeNull();
  });

  it('takes a timer before a later reading, and a reading of its very time before the timer', () => {
    const rule = ruleOf({ for: '10s' });
    const passed = new EvaluatedDevice([rule]).sample(0, { temp: 90 }).sample(11, { temp: 20 });
    expect(passed.steps).toContain('1 pending → firing at 10');
    const met = new EvaluatedDevice([rule]).sample(0, { temp: 90 }).sample(10, { temp: 20 });
    expect(met.steps).not.toContain('1 pending → firing at 10');
  });

  it('fires at the end of `for` without a reading, and says when it wants to be asked', () => {
    const device = new EvaluatedDevice([ruleOf({ for: '10s' })]).sample(0, { temp: 90 });
    expect(device.evaluation.nextDeadline).toBeLessThanOrEqual(10 * SECOND);
    device.timers(10);
    expect(device.steps).not.toContain('1 pending → firing at 10');
    device.timers(10.5);
    expect(device.steps.at(-1)).toBe('1 pending → firing at 10');
    expect(device.evaluation.nextDeadline).toBe(Infinity);
  });

  it('makes at most one opening and one end of a value that flaps at 10 Hz for 10 minutes [L-01]', () => {
    const when = { metric: 'temp', op: '>', value: 80, clear: 75 };
    const rule = ruleOf({ when, for: '2s', keepFiringFor: '60s' });
    const device = new EvaluatedDevice([rule]).sample(0, { temp: 90 });
    for (let tenths = 1; tenths < 6000; tenths += 1) {
      device.sample(3 + tenths / 10, { temp: tenths % 2 === 0 ? 81 : 70 });
    }
    device.sample(700, { temp: 20 }).timers(900);
    const opened = device.transitions.filter(
      ({ from, to }) => to === 'firing' && from !== 'firing',
    );
    const ended = device.transitions.filter(({ to }) => to === 'inactive');
    expect([opened.length, ended.length]).toEqual([1, 1]);
    // What is recorded of the flapping in between is bounded too.
    expect(device.transitions.length).toBeLessThan(10);
  });

  it('goes on with the other rules when one throws', () => {
    const broken = {
      ...ruleOf({}, { ruleId: 2 }),
      evaluate: () => {
        throw new Error('broken');
      },
    };
    const failed: number[] = [];
    const device = new EvaluatedDevice([broken, ruleOf()], {
      onFailed: ({ ruleId }) => failed.push(ruleId),
    });
    device.sample(1, { temp: 90 });
    expect(device.steps).toEqual(['1 inactive → firing at 1']);
    expect(failed).toEqual([2]);
  });

  it('looks at time alone as often as a rule asks, and gives up in a gap of years', () => {
    let evaluations = 0;
    const rule = {
      ...ruleOf(),
      tickMicros: 60 * SECOND,
      changesAt: () => 0,
      metrics: [],
      evaluate: () => {
        evaluations += 1;
        return 0 as const;
      },
    };
    const device = new EvaluatedDevice([rule]);
    device.evaluation.begin(90 * SECOND);
    device.timers(241);
    expect(evaluations).toBe(4);
    expect(device.evaluation.nextDeadline).toBe(300 * SECOND);
    device.timers(10 * 365 * 86_400);
    expect(evaluations).toBe(100_004);
    expect(device.evaluation.nextDeadline).toBeGreaterThanOrEqual(10 * 365 * 86_400 * SECOND);
  });
});

describe('late readings [L-05]', () => {
  it('do not reopen an alert that has ended', () => {
    for (const late of ['current-only', 'ignore', 're-evaluate']) {
      const device = new EvaluatedDevice([ruleOf({ late })]);
      device.sample(10, { temp: 90 }).sample(20, { temp: 20 });
      device.sample(15, { temp: 95 });
      expect(device.steps).toEqual(['1 inactive → firing at 10', '1 firing → inactive at 20']);
    }
  });

  it('count at the time of the evaluation when they are the newest of their series', () => {
    const when = {
      all: [
        { metric: 'temp', op: '>', value: 80 },
        { metric: 'flow', op: '<', value: 1 },
      ],
    };
    const device = new EvaluatedDevice([ruleOf({ when })]);
    device.sample(5, { flow: 5 }).sample(10, { temp: 90 }).sample(8, { flow: 0 });
    expect(device.steps).toEqual(['1 inactive → firing at 10']);
  });

  it('are not seen by a rule that ignores them, and are told of one that evaluates them again', () => {
    const all = [
      { metric: 'temp', op: '>', value: 80 },
      { metric: 'flow', op: '<', value: 1 },
    ];
    const told: LateReading[] = [];
    const rules = [
      ruleOf({ when: { all }, late: 'ignore' }, { ruleId: 1 }),
      ruleOf({ when: { all }, late: 're-evaluate' }, { ruleId: 2 }),
    ];
    const device = new EvaluatedDevice(rules, { onLate: (late) => told.push(late) });
    device.sample(5, { flow: 5 }).sample(10, { temp: 90 }).sample(8, { flow: 0 });
    device.sample(11, { temp: 90 });
    expect(device.steps).toEqual([]);
    expect(told).toEqual([
      { deviceId: 7, organizationId: 1, metric: 'flow', timeMicros: 8 * SECOND },
    ]);
    device.sample(12, { flow: 0 });
    expect(device.steps).toEqual(['1 inactive → firing at 12', '2 inactive → firing at 12']);
  });

  it('that are copies change nothing', () => {
    const device = new EvaluatedDevice([
      ruleOf({ when: { metric: 'temp', op: '>', value: 80, of: { n: 2, m: 3 } } }),
    ]);
    device.sample(1, { temp: 90 }).sample(1, { temp: 90 }).sample(1, { temp: 90 });
    expect(device.steps).toEqual([]);
    device.sample(2, { temp: 90 });
    expect(device.steps).toEqual(['1 inactive → firing at 2']);
  });
});

describe('allowed lateness', () => {
  const RULES = [
    ruleOf({ allowedLateness: '60s', for: '5s', keepFiringFor: '8s' }, { ruleId: 1 }),
    ruleOf(
      {
        allowedLateness: '60s',
        late: 'ignore',
        when: { metric: 'temp', window: '30s', fn: 'avg', op: '>', value: 75 },
      },
      { ruleId: 2 },
    ),
    ruleOf(
      {
        allowedLateness: '60s',
        when: {
          all: [
            { metric: 'temp', op: '>', value: 70, clear: 60 },
            { metric: 'flow', op: '<', value: 50 },
          ],
        },
      },
      { ruleId: 3 },
    ),
  ];

  it('gives the alerts of the ordered day for a day that is shuffled within the bound [L-05]', () => {
    const reading = fc.record({
      gapS: fc.integer({ min: 0, max: 20 }),
      metric: fc.constantFrom('temp', 'flow'),
      value: fc.integer({ min: 40, max: 100 }),
      delayS: fc.integer({ min: 0, max: 60 }),
    });
    fc.assert(
      // Readings of one time come in messages of their own, too.
      fc.property(fc.array(reading, { minLength: 1, maxLength: 150 }), (readings) => {
        let atS = 0;
        const moved = readings.map((each) => ({ ...each, atS: (atS += each.gapS) }));
        const keys = new Set<string>();
        const dated = moved.filter(({ metric, atS: second }) => {
          const isNew = !keys.has(`${metric} ${second}`);
          keys.add(`${metric} ${second}`);
          return isNew;
        });
        const shuffled = dated.toSorted(
          (one, other) => one.atS + one.delayS - other.atS - other.delayS,
        );
        const alertsOf = (day: typeof dated): string[] => {
          const device = new EvaluatedDevice(RULES);
          for (const each of day) device.sample(each.atS, { [each.metric]: each.value });
          device.timers(atS + 1000);
          return device.transitions.map((each) => `${stepOf(each)} ${each.alertId}`).toSorted();
        };
        expect(alertsOf(shuffled)).toEqual(alertsOf(dated));
      }),
      { numRuns: 60 },
    );
  });

  it('lets readings go on when the wall clock has passed it', () => {
    const device = new EvaluatedDevice([ruleOf({ allowedLateness: '60s' })]).sample(10, {
      temp: 90,
    });
    expect(device.steps).toEqual([]);
    expect(device.evaluation.nextDeadline).toBe(70 * SECOND);
    device.timers(70);
    expect(device.steps).toEqual([]);
    device.timers(70.5);
    expect(device.steps).toEqual(['1 inactive → firing at 10']);
  });

  it('delays a timer by as much: a reading of that time may still come', () => {
    const rule = ruleOf({ allowedLateness: '60s', for: '5s' });
    const device = new EvaluatedDevice([rule]).sample(10, { temp: 90 }).timers(74);
    expect(device.steps).toEqual(['1 inactive → pending at 10']);
    device.sample(14, { temp: 20 }).timers(200);
    expect(device.steps.filter((step) => step.includes('firing'))).toEqual([]);
  });

  it('evaluates the oldest early when more waits than may', () => {
    const rule = ruleOf({ allowedLateness: '60s' });
    const device = new EvaluatedDevice([rule], { reorderMax: 3 });
    for (const atS of [1, 2, 3]) device.sample(atS, { temp: 90 });
    expect(device.steps).toEqual([]);
    device.sample(4, { temp: 90 });
    expect(device.steps).toEqual(['1 inactive → firing at 1']);
  });

  it('orders events among readings', () => {
    const when = {
      all: [
        { event: 'door.open', holds: '10s' },
        { metric: 'temp', op: '>', value: 80 },
      ],
    };
    const device = new EvaluatedDevice([ruleOf({ allowedLateness: '60s', when })]);
    device.event(30, 'door.open').sample(20, { temp: 90 }).sample(35, { temp: 20 }).timers(200);
    expect(device.steps).toEqual(['1 inactive → firing at 30', '1 firing → inactive at 35']);
  });
});

describe('groups', () => {
  it('have an alert for each value of a text metric, which ends when the value is another', () => {
    const rule = ruleOf({ groupBy: 'recipe' });
    const device = new EvaluatedDevice([rule]).sample(1, { temp: 90, recipe: 'A' });
    device.sample(2, { recipe: 'B' }).sample(3, { temp: 20 });
    expect(device.steps).toEqual([
      '1 A inactive → firing at 1',
      '1 A firing → inactive at 2',
      '1 B inactive → firing at 2',
      '1 B firing → inactive at 3',
    ]);
  });

  it('have an alert for each value of a member of events', () => {
    const rule = ruleOf({ when: { event: 'door.open', holds: '10s' }, groupBy: 'door' });
    const device = new EvaluatedDevice([rule]);
    device.event(1, 'door.open', { door: 1 }).event(5, 'door.open', { door: 2 }).timers(60);
    expect(device.steps.filter((step) => step.includes('inactive → '))).toEqual([
      '1 1 inactive → firing at 1',
      '1 2 inactive → firing at 5',
    ]);
    expect(device.steps.filter((step) => step.includes('→ inactive'))).toEqual([
      '1 1 firing → inactive at 11',
      '1 2 firing → inactive at 15',
    ]);
  });

  it('are bounded: with as many alerts open as may be, another key is not evaluated', () => {
    const rule = ruleOf({ when: { event: 'fault', holds: '1h' }, groupBy: 'code' });
    const device = new EvaluatedDevice([rule]);
    for (let code = 0; code < GROUPS_MAX + 5; code += 1) device.event(code + 1, 'fault', { code });
    expect(device.evaluation.openAlerts).toHaveLength(GROUPS_MAX);
  });
});

describe('rules that change', () => {
  const exchange = (history: Parameters<typeof loadedOf>[0] = {}) => ({
    atMicros: 100 * SECOND,
    reasonOf: () => 'rule_deleted' as const,
    history: loadedOf(history).history,
  });

  it('go on with a firing alert that holds under the new version, and end it else [L-07]', () => {
    const device = new EvaluatedDevice([ruleOf({ for: '5s' })]);
    device.sample(0, { temp: 90 }).sample(6, { temp: 90 });
    const lower = ruleOf(
      { when: { metric: 'temp', op: '>', value: 85 }, for: '5s' },
      { version: 2 },
    );
    device.evaluation.replaceRules([lower], exchange());
    expect(device.evaluation.openAlerts).toMatchObject([
      { ruleVersion: 2, state: { phase: 'firing' } },
    ]);
    const higher = ruleOf({ when: { metric: 'temp', op: '>', value: 95 } }, { version: 3 });
    device.evaluation.replaceRules([higher], exchange());
    expect(device.transitions.at(-1)).toMatchObject({ to: 'inactive', reason: 'rule_changed' });
    expect(new Set(device.transitions.map(({ alertId }) => alertId)).size).toBe(1);
  });

  it('begin anew with a pending alert', () => {
    const device = new EvaluatedDevice([ruleOf({ for: '60s' })]).sample(0, { temp: 90 }).timers(5);
    device.evaluation.replaceRules([ruleOf({ for: '50s' }, { version: 2 })], exchange());
    expect(device.transitions.at(-1)).toMatchObject({ from: 'pending', reason: 'rule_changed' });
    expect(device.evaluation.openAlerts).toEqual([]);
  });

  it('leave no alert behind when they are gone [L-07]', () => {
    const device = new EvaluatedDevice([ruleOf(), ruleOf({}, { ruleId: 2 })]);
    const kept = device.evaluation.rules.filter(({ ruleId }) => ruleId === 2);
    device.sample(1, { temp: 90 });
    device.evaluation.replaceRules(kept, exchange());
    expect(device.transitions.at(-1)).toMatchObject({ ruleId: 1, reason: 'rule_deleted' });
    expect(device.evaluation.openAlerts.map(({ ruleId }) => ruleId)).toEqual([2]);
    device.sample(200, { temp: 20 });
    expect(device.steps.at(-1)).toBe('2 firing → inactive at 200');
  });

  it('do not disturb those that stay, and look back at history for themselves', () => {
    const window = { metric: 'temp', window: '1h', fn: 'max', op: '>', value: 80 };
    const first = ruleOf({ when: { metric: 'temp', op: '>', value: 80, of: { n: 2, m: 2 } } });
    const device = new EvaluatedDevice([first]).sample(50, { temp: 90 });
    const readings = [10, 20, 50].map((atS) => ({
      metric: 'temp',
      timeMicros: atS * SECOND,
      value: atS === 10 ? 95 : 60,
      text: null,
    }));
    device.evaluation.replaceRules(
      [first, ruleOf({ when: window }, { ruleId: 2 })],
      exchange({ history: readings }),
    );
    device.sample(60, { temp: 85 });
    expect(device.steps.toSorted()).toEqual([
      '1 inactive → firing at 60',
      '2 inactive → firing at 60',
    ]);
  });
});

const LATCHED = { metric: 'temp', op: '>', value: 80, clear: 75 };

describe('a device that is loaded', () => {
  const firing = (rule = ruleOf()) => {
    const device = new EvaluatedDevice([rule]).sample(10, { temp: 90 }).timers(20);
    return { device, open: device.evaluation.openAlerts };
  };
  const reading = (atS: number, value: number) => ({
    metric: 'temp',
    timeMicros: atS * SECOND,
    value,
    text: null,
  });

  it('goes on with its alerts: what was evaluated before makes the same steps or none', () => {
    const { device, open } = firing();
    const again = new EvaluatedDevice([ruleOf()]);
    const history = [reading(9, 20), reading(10, 90), reading(30, 20)];
    again.evaluation.load(loadedOf({ open, history, catchUpFromMicros: 5 * SECOND }));
    device.sample(30, { temp: 20 });
    expect(again.transitions).toEqual(device.transitions.slice(-1));
  });

  it('makes no second alert of what had ended before the crash', () => {
    const again = new EvaluatedDevice([ruleOf()]);
    again.evaluation.load(
      loadedOf({
        history: [reading(10, 90), reading(20, 91), reading(30, 20), reading(40, 99)],
        catchUpFromMicros: 15 * SECOND,
        settled: [{ ruleId: 1, groupKey: '', untilMicros: 30 * SECOND }],
      }),
    );
    expect(again.steps).toEqual(['1 inactive → firing at 40']);
  });

  it('takes no tick again whose step is on record [L-03]', () => {
    const rule = ruleOf({ when: { metric: 'on', window: '10s', fn: 'count', op: '>=', value: 2 } });
    const history = [27, 34, 35].map((atS) => ({ ...reading(atS, 1), metric: 'on' }));
    const ended = { ruleId: 1, groupKey: '', untilMicros: 44 * SECOND };
    for (const settledBehind of [39, 46]) {
      const again = new EvaluatedDevice([rule]);
      const settled = settledBehind < 44 ? [ended] : [];
      const tickedMicros = settledBehind * SECOND;
      again.evaluation.load(loadedOf({ history, settled, tickedMicros }));
      again.evaluation.begin(49 * SECOND);
      again.timers(60);
      expect(again.steps).toEqual([]);
      again.sample(61, { on: 1 }).sample(62, { on: 1 });
      expect(again.steps).toEqual(['1 inactive → firing at 62']);
    }
  });

  it('does not go on at ticks with a group that the device had left', () => {
    const when = { metric: 'temp', window: '1m', fn: 'count', op: '<', value: 4 };
    const rule = ruleOf({ when, groupBy: 'mode', keepFiringFor: '10s' });
    const device = new EvaluatedDevice([rule]);
    device.sample(100, { temp: 1, mode: 'eco' }).sample(102, { mode: 'off' }).timers(105);
    const { openAlerts: open } = device.evaluation;
    const mode = { metric: 'mode', value: NaN };
    const history = [
      reading(100, 1),
      { ...reading(100, NaN), ...mode, text: 'eco' },
      { ...reading(102, NaN), ...mode, text: 'off' },
    ];
    const again = new EvaluatedDevice([rule]);
    again.evaluation.load(loadedOf({ open, history }));
    again.evaluation.begin(105 * SECOND);
    again.timers(130);
    const before = device.steps.length;
    device.timers(130);
    expect(again.steps).toEqual(device.steps.slice(before));
  });

  it('evaluates an event at its own time that waited for its order', () => {
    const when = { event: 'door.open', holds: '15s' };
    const rule = ruleOf({ when, for: '4s', allowedLateness: '3s', late: 're-evaluate' });
    const device = new EvaluatedDevice([rule]).event(43.6, 'door.open').timers(49.1);
    const { openAlerts: open } = device.evaluation;
    const events = [{ name: 'door.open', timeMicros: 43.6 * SECOND, content: null }];
    const again = new EvaluatedDevice([rule]);
    again.evaluation.load(loadedOf({ open, events, catchUpFromMicros: 43.6 * SECOND }));
    again.evaluation.begin(49.1 * SECOND);
    again.timers(80);
    const before = device.steps.length;
    device.timers(80);
    expect(again.steps).toEqual(device.steps.slice(before));
    expect(again.steps.at(-1)).toBe('1 firing → inactive at 59');
  });

  it('keeps a hysteresis between its thresholds', () => {
    const rule = ruleOf({ when: { metric: 'temp', op: '>', value: 80, clear: 70 } });
    const { open } = firing(rule);
    const again = new EvaluatedDevice([rule]);
    again.evaluation.load(loadedOf({ open, history: [reading(30, 75)] }));
    again.sample(40, { temp: 76 });
    expect(again.steps).toEqual([]);
    again.sample(50, { temp: 60 });
    expect(again.steps).toEqual(['1 firing → inactive at 50']);
  });

  it.each([
    [
      'all',
      { all: [LATCHED, { metric: 'flow', op: '>', value: 0 }] },
      ['1 inactive → firing at 41'],
    ],
    [
      'any',
      { any: [LATCHED, { metric: 'flow', op: '<', value: 0 }] },
      ['1 inactive → firing at 40'],
    ],
    ['not', { not: LATCHED }, []],
  ])(
    'keeps one that is a part of a condition (%s), by the samples before',
    (_name, when, steps) => {
      const rule = ruleOf({ when });
      expect(rule.historySamples).toBeGreaterThan(10);
      const again = new EvaluatedDevice([rule]);
      again.evaluation.load(
        loadedOf({ history: [reading(10, 85), reading(20, 79), reading(30, 76)] }),
      );
      again.sample(40, { temp: 77 }).sample(41, { flow: 1 });
      expect(again.steps).toEqual(steps);
    },
  );

  it('ends an alert of another version that does not hold any more, and gives back those of no rule', () => {
    const { open } = firing();
    const higher = ruleOf({ when: { metric: 'temp', op: '>', value: 95 } }, { version: 2 });
    const again = new EvaluatedDevice([higher]);
    const left = again.evaluation.load(loadedOf({ open, history: [reading(10, 90)] }));
    expect(again.transitions).toMatchObject([{ reason: 'rule_changed', to: 'inactive' }]);
    expect(left).toEqual([]);
    const none = new EvaluatedDevice([ruleOf({}, { ruleId: 9 })]);
    expect(none.evaluation.load(loadedOf({ open }))).toEqual(open);
  });
});

describe('an unknown verdict', () => {
  it('leaves a firing alert as it is', () => {
    const device = new EvaluatedDevice([ruleOf()]);
    device.sample(10, { temp: 90 }).sample(20, { temp: 'very hot' }).timers(100);
    expect(device.steps).toEqual(['1 inactive → firing at 10']);
    device.sample(110, { temp: 20 });
    expect(device.steps.slice(1)).toEqual(['1 firing → inactive at 110']);
  });

  it('drops a pending alert', () => {
    const device = new EvaluatedDevice([ruleOf({ for: '10s' })]);
    device.sample(10, { temp: 90 }).sample(15, { temp: 'very hot' }).timers(100);
    expect(device.steps).toEqual(['1 inactive → pending at 10', '1 pending → inactive at 15']);
  });

  it('ends an alert while a metric of its rule was never sent', () => {
    const none = { metric: 'none', op: '>', value: 80 };
    const any = [{ metric: 'temp', op: '>', value: 80 }, none];
    const device = new EvaluatedDevice([ruleOf({ when: { any } })]);
    device.sample(10, { temp: 90 }).sample(20, { temp: 20 });
    expect(device.steps.slice(1)).toEqual(['1 firing → inactive at 20']);
  });
});

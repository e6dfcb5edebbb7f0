import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkKinds, listMetrics } from '../../rules/compile.ts';
import { conditionSchema } from '../../rules/condition/condition-schema.ts';
import { definitionOf, WatchedCondition } from '../support/condition.ts';

const above80 = { metric: 'temp', op: '>', value: 80 };

describe('compare', () => {
  it.each([
    ['>', [0, 0, 1]],
    ['>=', [0, 1, 1]],
    ['<', [1, 0, 0]],
    ['<=', [1, 1, 0]],
    ['==', [0, 1, 0]],
    ['!=', [1, 0, 1]],
  ])('holds numbers against one with %s', (op, held) => {
    const condition = new WatchedCondition({ metric: 'temp', op, value: 80 });
    expect(condition.run('temp', [79, 80, 81]).map((level) => (level > 0 ? 1 : 0))).toEqual(held);
  });

  it('compares booleans and texts for equality', () => {
    expect(
      new WatchedCondition({ metric: 'door', op: '==', value: true }).run('door', [false, true]),
    ).toEqual([0, 2]);
    expect(
      new WatchedCondition({ metric: 'mode', op: '!=', value: 'auto' }).run('mode', [
        'auto',
        'off',
      ]),
    ).toEqual([0, 2]);
  });

  it('does not hold, and neither does its negation, before the first reading', () => {
    const [plain, negated] = [
      new WatchedCondition(above80),
      new WatchedCondition({ not: above80 }),
    ];
    expect([plain.tick(1), negated.tick(1)]).toEqual([0, 0]);
    expect(negated.sample(2, { temp: 20 })).toBe(2);
  });

  it('does not hold of a reading of another kind, and neither does its negation', () => {
    expect(new WatchedCondition({ not: above80 }).sample(1, { temp: 'hot' })).toBe(0);
    const text = { metric: 'mode', op: '!=', value: 'auto' };
    expect(new WatchedCondition(text).sample(1, { mode: 3 })).toBe(0);
  });

  it('holds with a clear threshold until that is reached', () => {
    const condition = new WatchedCondition({ ...above80, clear: 75 });
    expect(condition.run('temp', [80, 81, 79, 76, 75, 79, 81])).toEqual([0, 2, 2, 2, 0, 0, 2]);
  });

  it('holds below with a clear threshold above', () => {
    const condition = new WatchedCondition({ metric: 'temp', op: '<=', value: 5, clear: 8 });
    expect(condition.run('temp', [6, 5, 7, 8, 6])).toEqual([0, 2, 2, 0, 0]);
  });

  it('keeps to its verdict inside the dead band, measured from the last value that counted', () => {
    const condition = new WatchedCondition({ ...above80, deadBand: 2 });
    // 81 holds; 79.5 is too close to it; 79 is not; then nothing is held and each value counts.
    expect(condition.run('temp', [81, 79.5, 79, 80.5, 79.9, 83, 80.9])).toEqual([
      2, 2, 0, 2, 2, 2, 2,
    ]);
  });

  it('flaps at 10 Hz around the threshold without a change, given a hysteresis (L-01)', () => {
    const condition = new WatchedCondition({ ...above80, clear: 75 });
    condition.sample(0, { temp: 81 });
    const levels = Array.from({ length: 6000 }, (_, n) =>
      condition.sample(1 + n / 10, { temp: n % 2 === 0 ? 79.5 : 80.5 }),
    );
    expect(new Set(levels)).toEqual(new Set([2]));
  });

  it('holds when N of the last M samples do', () => {
    const condition = new WatchedCondition({ ...above80, of: { n: 3, m: 5 } });
    expect(condition.run('temp', [81, 79, 81, 81, 79, 79, 79, 81])).toEqual([
      0, 0, 0, 2, 2, 0, 0, 0,
    ]);
  });

  it('counts N of M in samples of its metric, whatever else is evaluated in between', () => {
    const condition = new WatchedCondition({
      all: [
        { ...above80, of: { n: 2, m: 3 } },
        { metric: 'rh', op: '>', value: 0 },
      ],
    });
    condition.sample(1, { temp: 81, rh: 1 });
    expect([2, 3, 4].map((second) => condition.sample(second, { rh: 1 }))).toEqual([0, 0, 0]);
    expect(condition.sample(5, { temp: 82 })).toBe(2);
  });

  it('compares texts in N of M', () => {
    const condition = new WatchedCondition({
      metric: 'mode',
      op: '==',
      value: 'off',
      of: { n: 2, m: 3 },
    });
    expect(condition.run('mode', ['off', 'on', 'off', 'on', 'on'])).toEqual([0, 0, 2, 0, 0]);
  });
});

describe('all, any, not', () => {
  const unknown = { metric: 'never', op: '>', value: 0 };
  const yes = { metric: 'temp', op: '>', value: 0 };
  const no = { metric: 'temp', op: '<', value: 0 };
  it.each([
    ['all', [yes, yes], 1],
    ['all', [yes, no], 0],
    ['all', [yes, unknown], '?'],
    ['all', [unknown, no], 0],
    ['any', [no, no], 0],
    ['any', [no, yes], 1],
    ['any', [unknown, yes], 1],
    ['any', [no, unknown], '?'],
  ])('%s of %j is %s', (kind, parts, truth) => {
    const levels = [{ [kind]: parts }, { not: { [kind]: parts } }].map((json) =>
      new WatchedCondition(json).sample(1, { temp: 5 }),
    );
    expect(levels).toEqual(truth === '?' ? [0, 0] : truth === 1 ? [2, 0] : [0, 2]);
  });

  it('feed windows that a short cut leaves out', () => {
    const condition = new WatchedCondition({
      all: [
        { metric: 'armed', op: '==', value: true },
        { metric: 'temp', samples: 3, fn: 'sum', op: '==', value: 6 },
      ],
    });
    condition.sample(1, { armed: false, temp: 1 });
    condition.sample(2, { temp: 2 });
    condition.sample(3, { temp: 3 });
    expect(condition.sample(4, { armed: true })).toBe(2);
  });
});

describe('levels', () => {
  it('give the highest whose condition holds, whatever the others say', () => {
    const condition = new WatchedCondition(above80, {
      levels: [
        { severity: 'high', when: { metric: 'temp', op: '>', value: 90 } },
        { severity: 'critical', when: { metric: 'smoke', op: '==', value: true } },
      ],
    });
    expect(condition.run('temp', [70, 85, 95])).toEqual([0, 2, 4]);
    expect(condition.sample(9, { temp: 20, smoke: true })).toBe(5);
  });
});

describe('another metric', () => {
  it('is compared as it is, scaled', () => {
    const condition = new WatchedCondition({
      metric: 'temp',
      op: '>',
      other: 'setpoint',
      times: 2,
      plus: 5,
    });
    expect(condition.sample(1, { temp: 26 })).toBe(0);
    expect(condition.sample(2, { setpoint: 10 })).toBe(2);
    expect(condition.sample(3, { setpoint: 11 })).toBe(0);
    expect(condition.words()).toEqual([
      'temp | 26 | > 2 × setpoint + 5 | does not hold',
      'setpoint | 11 | - | does not hold',
    ]);
  });

  it('is unknown where the sum is beyond all numbers', () => {
    const json = { metric: 'temp', op: '<', other: 'setpoint', times: 1e300 };
    const condition = new WatchedCondition({ not: json });
    expect(condition.sample(1, { temp: 1, setpoint: 1e300 })).toBe(0);
  });

  it('is compared as it was: what held then, that long before the newest sample', () => {
    const condition = new WatchedCondition({
      metric: 'temp',
      op: '>',
      other: 'temp',
      ago: '10s',
      plus: 5,
    });
    expect(condition.sample(0, { temp: 1 })).toBe(0);
    expect(condition.sample(9, { temp: 20 })).toBe(0);
    // Ten seconds before it was 1, since second 0.
    expect(condition.sample(12, { temp: 20 })).toBe(2);
    // Silence changes nothing.
    expect(condition.tick(500)).toBe(2);
    expect(condition.words()[1]).toBe('temp 10s ago | 1 | - | holds');
    expect(condition.sample(19, { temp: 20 })).toBe(0);
  });

  it('keeps no more of the past than the bound, and is exact to a piece of it', () => {
    const json = { metric: 'temp', op: '>', other: 'temp', ago: '100s' };
    const condition = new WatchedCondition({ ...json, plus: 95 }, { windowSamplesMax: 12 });
    // It rises by one a second; ten pieces of ten seconds: what it was is known to ten.
    const levels = Array.from({ length: 400 }, (_, n) => condition.sample(n, { temp: n }));
    expect(levels.slice(110).every((level) => level === 2)).toBe(true);
    const close = new WatchedCondition({ ...json, plus: 111 }, { windowSamplesMax: 12 });
    expect(Array.from({ length: 400 }, (_, n) => close.sample(n, { temp: n }))).not.toContain(2);
  });
});

describe('the fleet', () => {
  it('is compared with, scaled, and unknown when there is none', () => {
    const asked: string[] = [];
    let average = NaN;
    const condition = new WatchedCondition(
      { metric: 'temp', op: '>', fleet: 'avg', tag: 'hall-3', plus: 5 },
      {
        fleet: {
          value: (fn, tag, metric) => {
            asked.push(`${fn} ${tag} ${metric}`);
            return average;
          },
        },
      },
    );
    expect(condition.sample(1, { temp: 30 })).toBe(0);
    average = 20;
    expect(condition.sample(2, { temp: 30 })).toBe(2);
    expect(new Set(asked)).toEqual(new Set(['avg hall-3 temp']));
    expect(condition.words()).toEqual([
      'temp | 30 | > avg(temp of hall-3) + 5 | holds',
      'avg(temp of hall-3) | 20 | - | holds',
    ]);
  });
});

describe('event, connection, noData', () => {
  it('holds from the event on, for less than its time', () => {
    const condition = new WatchedCondition({ event: 'door.open', holds: '10s' });
    expect(condition.tick(1)).toBe(0);
    expect(condition.event(2, 'door.shut')).toBe(0);
    expect(condition.event(3, 'door.open')).toBe(2);
    expect([4, 12, 13].map((second) => condition.tick(second))).toEqual([2, 2, 0]);
    expect(condition.rule).toMatchObject({ events: ['door.open'], tickMicros: 1_000_000 });
  });

  it('holds at the event alone without a time', () => {
    const condition = new WatchedCondition({ event: 'door.open' });
    expect([condition.event(3, 'door.open'), condition.tick(3)]).toEqual([2, 0]);
  });

  it('takes an event in behind a short cut', () => {
    const json = {
      all: [
        { metric: 'armed', op: '==', value: true },
        { event: 'x', holds: '1m' },
      ],
    };
    const condition = new WatchedCondition(json);
    expect(condition.event(1, 'x')).toBe(0);
    expect(condition.sample(2, { armed: true })).toBe(2);
  });

  it('holds while the connection is in its state', () => {
    const condition = new WatchedCondition({ connection: 'offline' });
    expect(condition.tick(1)).toBe(0);
    expect(condition.set({ connection: 'offline' }).tick(2)).toBe(2);
    expect(condition.rule.usesConnection).toBe(true);
    expect(condition.words()).toEqual(['connection | offline | == offline | holds']);
  });

  it('holds while the device is silent in one of the ways that are meant', () => {
    const condition = new WatchedCondition({ noData: '5m', kinds: ['silent', 'garbage'] });
    expect(condition.tick(1)).toBe(0);
    expect(condition.set({ silence: 'offline' }).tick(2)).toBe(0);
    expect(condition.words()).toEqual([
      'device | offline | silent or garbage for longer than 5m | does not hold',
    ]);
    expect(condition.set({ silence: 'garbage' }).tick(3)).toBe(2);
    expect(condition.rule.noData).toEqual({
      afterMicros: 300_000_000,
      kinds: ['silent', 'garbage'],
    });
    expect(condition.words()).toEqual([
      'device | sending garbage | silent or garbage for longer than 5m | holds',
    ]);
    expect(condition.set({ silence: null }).tick(4)).toBe(0);
    expect(condition.words()).toEqual([
      'device | sending | silent or garbage for longer than 5m | does not hold',
    ]);
  });
});

describe('memory', () => {
  it('begins as if an alert had been open: hysteresis between its thresholds, events, flatline', () => {
    const memoryOf = (json: unknown, level: 2 | 4) => {
      const condition = new WatchedCondition(json, { levels: [{ severity: 'high', when: json }] });
      condition.rule.restoreMemory(condition.context.memory, level, 100_000_000);
      return condition;
    };
    const hysteresis = { ...above80, clear: 75 };
    expect(memoryOf(hysteresis, 4).sample(101, { temp: 78 })).toBe(4);
    expect(memoryOf(hysteresis, 2).sample(101, { temp: 78 })).toBe(2);
    expect(memoryOf(hysteresis, 4).sample(101, { temp: 74 })).toBe(0);
    expect(memoryOf({ not: hysteresis }, 4).sample(101, { temp: 78 })).toBe(4);
    const event = memoryOf({ event: 'x', holds: '10s' }, 4);
    expect([event.tick(109), event.tick(110)]).toEqual([4, 0]);
    const stuck = memoryOf({ metric: 'temp', stuck: '1h' }, 4);
    expect([stuck.sample(101, { temp: 5 }), stuck.sample(102, { temp: 6 })]).toEqual([4, 0]);
  });

  it('is as new after a reset', () => {
    for (const json of [
      { ...above80, clear: 75 },
      { ...above80, of: { n: 1, m: 5 } },
      { metric: 'temp', window: '1h', fn: 'max', op: '>', value: 80 },
      { metric: 'temp', window: '1h', fn: 'stddev', op: '>', value: 8 },
      { metric: 'temp', window: '1h', fn: 'p90', op: '>', value: 80 },
      { metric: 'temp', stuck: '1s', within: 100 },
      { metric: 'temp', op: '>', other: 'temp', ago: '1s', plus: -99 },
    ]) {
      const condition = new WatchedCondition(json);
      const values = [85, 95, 78, 79, 30];
      const levels = condition.run('temp', values);
      for (const memory of condition.context.memory) memory.reset();
      expect(condition.run('temp', values)).toEqual(levels);
      expect(levels).toContain(2);
    }
  });
});

describe('operands', () => {
  it('say what was looked at, in numbers, each once, of every level', () => {
    const condition = new WatchedCondition(
      { any: [above80, { metric: 'mode', op: '==', value: 'off' }] },
      { levels: [{ severity: 'high', when: { ...above80, clear: 70, deadBand: 0.5 } }] },
    );
    condition.sample(5, { temp: 81.5 });
    expect(condition.operands()).toEqual([
      { name: 'temp', value: 81.5, timeMicros: 5_000_000, against: '> 80', holds: true },
      { name: 'mode', value: null, timeMicros: null, against: '== "off"', holds: false },
      {
        name: 'temp',
        value: 81.5,
        timeMicros: 5_000_000,
        against: '> 80 until <= 70, dead band 0.5',
        holds: true,
      },
    ]);
  });

  it('are at most 16, those that hold first, and texts of devices are cut', () => {
    const any = Array.from({ length: 30 }, (_, n) => ({ metric: 'temp', op: '>', value: n }));
    const condition = new WatchedCondition({ any });
    condition.sample(1, { temp: 29 });
    expect(condition.operands().map(({ holds }) => holds)).toEqual(Array(16).fill(true));
    const text = new WatchedCondition({ metric: 'mode', op: '!=', value: 'x' });
    text.sample(1, { mode: 'y'.repeat(5000) });
    expect(String(text.operands()[0]?.value)).toHaveLength(120);
  });

  it('count the samples of N of M', () => {
    const condition = new WatchedCondition({ ...above80, of: { n: 2, m: 5 } });
    condition.run('temp', [81, 20, 82]);
    expect(condition.words()).toEqual(['samples of the last 5 with temp > 80 | 2 | >= 2 | holds']);
  });
});

describe('checkKinds', () => {
  const kinds = new Map([
    ['temp', 'number'],
    ['door', 'bool'],
    ['mode', 'text'],
  ] as const);
  const faultsOf = (when: unknown): string[] =>
    checkKinds(definitionOf(when), kinds).map(({ path, message }) => `${path}: ${message}`);

  it.each([
    [{ metric: 'temp', op: '==', value: 'x' }, 'when.value: temp is a number, not a text'],
    [{ metric: 'door', op: '>', value: 1 }, 'when.value: door is true or false, not a number'],
    [
      { metric: 'mode', window: '5m', fn: 'avg', op: '>', value: 1 },
      'when.metric: mode is a text: nothing can be computed of it',
    ],
    [
      { all: [{ not: { metric: 'mode', stuck: '5m' } }] },
      'when.all.0.not.metric: mode is a text: nothing can be computed of it',
    ],
    [
      { metric: 'temp', op: '>', other: 'door' },
      'when.other: temp is a number, door is true or false',
    ],
    [{ cel: 'door > 1' }, 'when.cel: door is true or false, it is used as a number'],
    [{ cel: 'temp == "x"' }, 'when.cel: temp is a number, it is used as a text'],
    [{ cel: 'mode' }, 'when.cel: mode is a text, it is used as true or false'],
  ])('refuses %j', (when, fault) => {
    expect(faultsOf(when)).toEqual([fault]);
  });

  it.each([
    { metric: 'unseen', op: '==', value: 'x' },
    { metric: 'door', window: '1h', fn: 'avg', op: '>', value: 0.5 },
    { metric: 'mode', window: '1h', fn: 'count', op: '>', value: 5 },
    { cel: 'door && mode == "x" && temp > unseen' },
    { any: [{ noData: '5m' }, { not: { noData: '5m', kinds: ['garbage'] } }] },
  ])('accepts %j', (when) => {
    expect(faultsOf(when)).toEqual([]);
  });

  it('refuses two different deadlines for silence in one rule', () => {
    const fault = 'when: every noData of a rule must have the same duration';
    expect(faultsOf({ any: [{ noData: '5m' }, { noData: 'auto' }] })).toEqual([fault]);
  });
});

describe('a compiled rule', () => {
  it('says what it looks at, how often, and how far back', () => {
    const { rule } = new WatchedCondition({
      all: [
        above80,
        { metric: 'temp', window: '5m', fn: 'avg', op: '>', value: 1 },
        { metric: 'rh', stuck: '1h' },
        { metric: 'power', samples: 20, fn: 'max', op: '>', value: 1 },
        { cel: 'grid.l1 > 3 && connection == "online" && event in ["a", "b"]' },
      ],
    });
    expect(rule).toMatchObject({
      metrics: ['temp', 'rh', 'power', 'grid.l1'],
      events: ['a', 'b'],
      usesConnection: true,
      noData: null,
      historyMicros: 7_200_000_000,
      historySamples: 20,
    });
  });

  it.each([
    [above80, null],
    [{ metric: 'temp', window: '5m', fn: 'avg', op: '>', value: 1 }, null],
    [{ metric: 'temp', window: '5m', fn: 'count', op: '<', value: 1 }, 15_000_000],
    [{ metric: 'temp', window: '1d', fn: 'count', op: '<', value: 1 }, 60_000_000],
    [{ schedule: { timeZone: 'UTC', from: '08:00' } }, 60_000_000],
    [{ any: [{ event: 'x', holds: '1h' }, { event: 'y' }] }, 1_000_000],
  ])('ticks for %j every %s µs', (when, tickMicros) => {
    expect(new WatchedCondition(when).rule.tickMicros).toBe(tickMicros);
  });

  it('lists metrics as compiled rules have them', () => {
    const conditions = [{ cel: 'b > 1 && a.x' }, above80].map((json) =>
      conditionSchema.parse(json),
    );
    expect(listMetrics(conditions)).toEqual(['b', 'a.x', 'temp']);
  });
});

describe('changesAt', () => {
  const count = { metric: 'temp', window: '40s', fn: 'count', op: '>', value: 2 };
  const rules = fc.constantFrom<unknown>(
    count,
    { ...count, clear: 1 },
    { not: count },
    { event: 'x', holds: '25s' },
    { event: 'x' },
    { cel: 'event == "x" || temp > 80' },
    { schedule: { timeZone: 'Europe/Berlin', from: '01:00', to: '01:03' } },
    { any: [{ all: [count, { event: 'x', holds: '90s' }] }, { not: { event: 'y', holds: '7s' } }] },
    above80,
  );
  const happening = fc.tuple(
    fc.integer({ min: 1, max: 30 }),
    fc.constantFrom('temp', 'x', 'y', 'temp'),
    fc.integer({ min: 79, max: 82 }),
  );

  it('says when to look again: in between no look changes the verdict', () => {
    fc.assert(
      fc.property(rules, fc.array(happening, { maxLength: 40 }), (json, all) => {
        const [watched, patient] = [new WatchedCondition(json), new WatchedCondition(json)];
        let second = 0;
        let verdict = patient.tick(0);
        const wait = (until: number): void => {
          for (; second < until; second += 1) {
            const at = patient.rule.changesAt(patient.context);
            expect(at).toBeGreaterThan(patient.context.timeMicros);
            if (at <= second * 1_000_000) verdict = patient.tick(at / 1_000_000);
            expect(watched.tick(second)).toBe(verdict);
          }
        };
        wait(1);
        for (const [gap, what, value] of all) {
          wait(second + gap - 1);
          const [one, other] = [watched, patient].map((condition) =>
            what === 'temp'
              ? condition.sample(second, { temp: value })
              : condition.event(second, what),
          );
          expect(one).toBe(other);
          verdict = other ?? 0;
          second += 1;
        }
        wait(second + 200);
      }),
      { numRuns: 200 },
    );
  });

  it('is never, of what time does not change or has not to', () => {
    expect(
      new WatchedCondition(above80).rule.changesAt(new WatchedCondition(above80).context),
    ).toBe(Infinity);
    const event = new WatchedCondition({ event: 'x', holds: '10s' });
    event.tick(1);
    expect(event.rule.changesAt(event.context)).toBe(Infinity);
    event.event(5, 'x');
    expect(event.rule.changesAt(event.context)).toBe(15_000_000);
    event.tick(15);
    expect(event.rule.changesAt(event.context)).toBe(Infinity);
  });
});

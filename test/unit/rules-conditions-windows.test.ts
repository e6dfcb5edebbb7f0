import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { WatchedCondition } from '../support/condition.ts';

interface Sample {
  readonly at: number;
  readonly value: number;
}

const FUNCTIONS = ['avg', 'min', 'max', 'sum', 'delta', 'rate', 'stddev', 'p1', 'p50', 'p95'];
const value = fc.oneof(
  fc.integer({ min: -3, max: 3 }),
  fc.double({ min: -1e6, max: 1e6, noNaN: true }),
);
const samplesArbitrary = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 40 }), value), { minLength: 1, maxLength: 120 })
  .map((gaps) => {
    let at = 0;
    return gaps.map(([gap, of]): Sample => ({ at: (at += gap), value: of }));
  });

/** What a window function says, computed anew from its definition. NaN: nothing. */
function reference(fn: string, window: readonly Sample[]): number {
  const values = window.map((sample) => sample.value);
  const [first, last] = [window[0], window.at(-1)];
  if (first === undefined || last === undefined) return NaN;
  const mean = values.reduce((sum, one) => sum + one, 0) / values.length;
  switch (fn) {
    case 'avg':
      return mean;
    case 'sum':
      return mean * values.length;
    case 'min':
      return Math.min(...values);
    case 'max':
      return Math.max(...values);
    case 'delta':
      return values.length < 2 ? NaN : last.value - first.value;
    case 'rate':
      return values.length < 2 ? NaN : (last.value - first.value) / (last.at - first.at);
    case 'stddev': {
      const squares = values.reduce((sum, one) => sum + (one - mean) ** 2, 0);
      return values.length < 2 ? NaN : Math.sqrt(squares / values.length);
    }
    default: {
      const sorted = values.toSorted((one, other) => one - other);
      const rank = (Number(fn.slice(1)) / 100) * (sorted.length - 1);
      const [low = NaN, high = low] = sorted.slice(Math.floor(rank));
      return low + (high - low) * (rank - Math.floor(rank));
    }
  }
}

/** What the window shows to people, NaN of nothing. */
function shown(condition: WatchedCondition): number {
  return Number(condition.operands()[0]?.value ?? NaN);
}

function expectClose(actual: number, expected: number, scale: number): void {
  if (Number.isNaN(expected)) expect(actual).toBeNaN();
  else expect(Math.abs(actual - expected)).toBeLessThanOrEqual(1e-9 * Math.max(1, scale));
}

const scaleOf = (samples: readonly Sample[]): number =>
  samples.reduce((sum, sample) => sum + Math.abs(sample.value), 0);

describe.each(FUNCTIONS)('window function %s', (fn) => {
  it('over time agrees with its definition over (newest − span, newest]', () => {
    fc.assert(
      fc.property(samplesArbitrary, fc.integer({ min: 1, max: 300 }), (samples, span) => {
        const condition = new WatchedCondition({
          metric: 'x',
          window: `${span}s`,
          fn,
          op: '>',
          value: 0,
        });
        for (const [index, sample] of samples.entries()) {
          condition.sample(sample.at, { x: sample.value });
          const window = samples.slice(0, index + 1).filter(({ at }) => at > sample.at - span);
          expectClose(shown(condition), reference(fn, window), scaleOf(window));
        }
      }),
      { numRuns: 60 },
    );
  });

  it('over samples agrees with its definition, once there are as many', () => {
    fc.assert(
      fc.property(samplesArbitrary, fc.integer({ min: 2, max: 50 }), (all, samples) => {
        const condition = new WatchedCondition({ metric: 'x', samples, fn, op: '>', value: 0 });
        for (const [index, sample] of all.entries()) {
          condition.sample(sample.at, { x: sample.value });
          const window = all.slice(Math.max(0, index + 1 - samples), index + 1);
          const expected = window.length < samples ? NaN : reference(fn, window);
          expectClose(shown(condition), expected, scaleOf(window));
        }
      }),
      { numRuns: 60 },
    );
  });

  it('holds no more samples than the bound, says so, and is right for the newest', () => {
    const json = { metric: 'x', window: '1000s', fn, op: '>', value: 0 };
    const condition = new WatchedCondition(json, { windowSamplesMax: 20 });
    const all = Array.from({ length: 100 }, (_, n) => ({ at: n + 1, value: (n * 7919) % 101 }));
    for (const [index, sample] of all.entries()) {
      condition.sample(sample.at, { x: sample.value });
      const window = all.slice(Math.max(0, index - 19), index + 1);
      expectClose(shown(condition), reference(fn, window), scaleOf(window));
      const isCut = condition.operands()[0]?.name === `${fn}(x, 1000s, newest 20 samples)`;
      expect(isCut).toBe(index >= 20);
    }
    // The span is over: what is kept is all there is.
    condition.sample(5000, { x: 1 });
    expect(condition.operands()[0]?.name).toBe(`${fn}(x, 1000s)`);
  });

  it('has neither NaN nor Infinity, of one sample, equal ones or the largest there are (L-14)', () => {
    const condition = new WatchedCondition({ metric: 'x', window: '60s', fn, op: '>', value: 0 });
    const max = Number.MAX_VALUE;
    for (const [index, of] of [7, 7, 7, 0, 0, max, max, -max, -max, max, 0, 0].entries()) {
      condition.sample(index * 7, { x: of });
      const [operand] = condition.operands();
      expect(operand?.value === null || Number.isFinite(operand?.value)).toBe(true);
    }
  });

  it('is unknown of texts, and its negation too', () => {
    const json = { metric: 'x', window: '60s', fn, op: '>', value: 0 };
    for (const when of [json, { not: json }]) {
      expect(new WatchedCondition(when).run('x', ['a', 'b', 'c'])).toEqual([0, 0, 0]);
    }
  });

  it('is not changed by silence', () => {
    const condition = new WatchedCondition({ metric: 'x', window: '60s', fn, op: '>', value: -99 });
    condition.run('x', [1, 2, 3, 4, 5]);
    const before = shown(condition);
    expect([condition.tick(100_000), shown(condition)]).toEqual([2, before]);
  });
});

describe('window', () => {
  it('keeps no error of rounding of a sample that went out', () => {
    for (const fn of ['sum', 'avg', 'stddev']) {
      const condition = new WatchedCondition({ metric: 'x', window: '5s', fn, op: '>', value: 0 });
      const levels = condition.run('x', [0, 0, 1e300, 1e-9, 0, 0, 0, 0, 0, 0, 0, 0]);
      expect([levels.at(-1), shown(condition)]).toEqual([0, 0]);
    }
  });

  it('holds with a clear threshold until what is computed reaches it', () => {
    const condition = new WatchedCondition({
      metric: 'x',
      window: '2s',
      fn: 'avg',
      op: '>',
      value: 80,
      clear: 75,
    });
    expect(condition.run('x', [80, 80, 84, 76, 76, 74, 76])).toEqual([0, 0, 2, 2, 2, 0, 0]);
    expect(condition.words()).toEqual(['avg(x, 2s) | 75 | > 80 until <= 75 | does not hold']);
  });

  it('is not kept to by a hysteresis before it is whole', () => {
    const json = { metric: 'x', window: '10s', fn: 'avg', op: '>', value: 80, clear: 10 };
    const condition = new WatchedCondition(json);
    expect(condition.run('x', [90, 90, 20, ...Array<number>(12).fill(20)])).toEqual([
      2,
      2,
      ...Array<number>(13).fill(0),
    ]);
  });

  it('takes booleans as 1 and 0', () => {
    const json = { metric: 'pump', samples: 4, fn: 'avg', op: '>=', value: 0.75 };
    expect(new WatchedCondition(json).run('pump', [true, false, true, true, true, false])).toEqual([
      0, 0, 0, 2, 2, 2,
    ]);
  });

  it('takes a sample in once, however often it is evaluated', () => {
    const condition = new WatchedCondition({
      metric: 'x',
      window: '1h',
      fn: 'sum',
      op: '>',
      value: 0,
    });
    condition.sample(1, { x: 5 });
    for (const second of [1, 2, 3]) condition.tick(second);
    expect(shown(condition)).toBe(5);
  });

  it('leaves out a sample exactly a span old, and keeps one a microsecond younger', () => {
    const condition = new WatchedCondition({
      metric: 'x',
      window: '10s',
      fn: 'sum',
      op: '>',
      value: 0,
    });
    condition.sample(0, { x: 1 });
    condition.sample(0.000001, { x: 2 });
    condition.sample(10, { x: 4 });
    expect(shown(condition)).toBe(6);
  });
});

describe('count', () => {
  it('agrees with counting, at any time and not only with a sample', () => {
    fc.assert(
      fc.property(
        samplesArbitrary,
        fc.array(fc.integer({ min: 1, max: 500 }), { maxLength: 30 }),
        (samples, ticks) => {
          const json = { metric: 'x', window: '60s', fn: 'count', op: '>', value: 0 };
          const condition = new WatchedCondition(json);
          const steps = [...samples, ...ticks.map((at) => ({ at, value: null }))].toSorted(
            (one, other) => one.at - other.at,
          );
          const seen: number[] = [];
          for (const { at, value: of } of steps) {
            if (of === null) condition.tick(at);
            else {
              seen.push(at);
              condition.sample(at, { x: of });
            }
            const count = seen.filter((one) => one > at - 60).length;
            expect(shown(condition)).toEqual(seen.length === 0 ? NaN : count);
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  it('is known to be zero once there was a sample, of texts too', () => {
    const condition = new WatchedCondition({
      metric: 'x',
      window: '60s',
      fn: 'count',
      op: '<',
      value: 1,
    });
    expect([condition.tick(0), condition.sample(1, { x: 'a' }), condition.tick(61)]).toEqual([
      0, 0, 2,
    ]);
  });
});

describe('stuck', () => {
  it('holds when a metric stays in a band for the span, by what is sent', () => {
    const condition = new WatchedCondition({ metric: 'x', stuck: '3s', within: 0.5 });
    expect(condition.run('x', [1, 1.5, 1.25, 1, 1.2, 1.6, 1.6, 1.6, 1.6])).toEqual([
      0, 0, 0, 2, 2, 0, 0, 2, 2,
    ]);
  });

  it('does not hold of a device that is silent', () => {
    const condition = new WatchedCondition({ metric: 'x', stuck: '3s' });
    condition.sample(1, { x: 1 });
    expect(condition.tick(1000)).toBe(0);
    expect(condition.sample(1001, { x: 1 })).toBe(2);
  });

  it('agrees with looking at everything that was sent', () => {
    const band = fc.constantFrom(0, 1, 2.5);
    const small = fc.integer({ min: 0, max: 4 });
    const gaps = fc.array(fc.tuple(fc.integer({ min: 1, max: 20 }), small), { maxLength: 80 });
    fc.assert(
      fc.property(gaps, band, fc.integer({ min: 1, max: 60 }), (steps, within, span) => {
        const condition = new WatchedCondition({ metric: 'x', stuck: `${span}s`, within });
        const seen: Sample[] = [];
        let at = 0;
        for (const [gap, of] of steps) {
          at += gap;
          seen.push({ at, value: of });
          const level = condition.sample(at, { x: of });
          // A value lasts until the next one, so the one at the beginning of the span counts as well.
          const begin = seen.findLastIndex((sample) => sample.at <= at - span);
          const values = seen.slice(Math.max(begin, 0)).map((sample) => sample.value);
          const isStuck = begin >= 0 && Math.max(...values) - Math.min(...values) <= within;
          expect(level).toBe(isStuck ? 2 : 0);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('holds no more samples than the bound, whatever comes', () => {
    const json = { metric: 'x', stuck: '1h', within: 1e9 };
    const condition = new WatchedCondition(json, { windowSamplesMax: 20 });
    // Each is larger than all before: each could become the smallest.
    const rising = Array.from({ length: 4000 }, (_, n) => n);
    expect(new Set(condition.run('x', rising))).toEqual(new Set([0]));
    // A value that lies flat needs no more than one place.
    const flat = new WatchedCondition(json, { windowSamplesMax: 20 });
    expect(flat.run('x', Array(4000).fill(3)).at(-1)).toBe(2);
  });

  it('says for how long it has moved by how much', () => {
    const condition = new WatchedCondition({ metric: 'x', stuck: '10m', within: 0.5 });
    expect(condition.words()).toEqual(['change of x | null | <= 0.5 for 10m | does not hold']);
    condition.sample(60, { x: 1 });
    condition.sample(180, { x: 1.25 });
    expect(condition.words()).toEqual([
      'change of x in 2m | 0.25 | <= 0.5 for 10m | does not hold',
    ]);
  });

  it('says right behind a jump by how much it has jumped', () => {
    const condition = new WatchedCondition({ metric: 'x', stuck: '5s', within: 0.1 });
    condition.run('x', [5, 5, 5, 7]);
    expect(condition.words()).toEqual(['change of x | 2 | <= 0.1 for 5s | does not hold']);
    condition.sample(6, { x: 7 });
    expect(condition.words()).toEqual(['change of x in 2s | 0 | <= 0.1 for 5s | does not hold']);
  });
});

describe('a restart (L-09)', () => {
  const conditions = fc.constantFrom<object>(
    ...FUNCTIONS.map((fn) => ({ metric: 'x', window: '60s', fn, op: '>', value: 1 })),
    { metric: 'x', window: '60s', fn: 'avg', op: '>', value: 1, clear: -1 },
    { metric: 'x', window: '60s', fn: 'count', op: '>', value: 3 },
    { metric: 'x', samples: 7, fn: 'p50', op: '>', value: 0 },
    { metric: 'x', samples: 7, fn: 'avg', op: '<', value: -1, clear: 0 },
    { metric: 'x', op: '>', value: 1, of: { n: 3, m: 6 } },
    { metric: 'x', op: '>', value: 1, clear: -1 },
    { metric: 'x', stuck: '60s', within: 2 },
    { metric: 'x', op: '>', other: 'x', ago: '200s' },
  );

  it('goes on as if it had not been, from as much history as the rule asks for', () => {
    const steps = fc.array(
      fc.tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: -3, max: 3 })),
      { minLength: 30, maxLength: 80 },
    );
    fc.assert(
      fc.property(conditions, steps, fc.integer({ min: 5, max: 25 }), (json, gaps, cut) => {
        const live = new WatchedCondition(json);
        const again = new WatchedCondition(json);
        let at = 0;
        const all = gaps.map(([gap, of]): Sample => ({ at: (at += gap), value: of }));
        // In the first minute of a device a hysteresis goes by what few samples there are.
        fc.pre((all[cut - 1]?.at ?? 0) - (all[0]?.at ?? 0) >= 60);
        const levels = all.map((sample) => live.sample(sample.at, { x: sample.value }));
        const open = levels[cut - 1] ?? 0;
        if (open > 0) again.rule.restoreMemory(again.context.memory, open, 0);
        const { historyMicros, historySamples } = again.rule;
        const begin = (all[cut]?.at ?? 0) - historyMicros / 1e6;
        const first = Math.min(
          all.findIndex((sample) => sample.at >= begin),
          cut - Math.max(historySamples, 1),
        );
        for (const sample of all.slice(Math.max(first, 0), cut)) {
          again.sample(sample.at, { x: sample.value });
        }
        const after = all.slice(cut).map((sample) => again.sample(sample.at, { x: sample.value }));
        expect(after).toEqual(levels.slice(cut));
      }),
      { numRuns: 500 },
    );
  });
});

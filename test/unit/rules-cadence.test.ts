import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  BUCKETS_MAX,
  Cadence,
  GAPS_MIN,
  GapSketch,
  QUANTILE_ERROR_MAX,
  WEIGHT_MAX,
} from '../../rules/no-data/cadence.ts';

const SECOND = 1_000_000;
const HOUR = 3600 * SECOND;

function exactQuantile(durations: readonly number[], share: number): number {
  const sorted = durations.toSorted((left, right) => left - right);
  return sorted[Math.ceil(share * sorted.length) - 1] ?? NaN;
}

function sketchOf(durations: readonly number[]): GapSketch {
  const sketch = new GapSketch();
  for (const duration of durations) sketch.add(duration);
  return sketch;
}

describe('sketch of gaps', () => {
  it('gives p99 within its error of the exact one, while nothing is forgotten', () => {
    const spread = fc
      .tuple(
        fc.double({ min: 0, max: 10, noNaN: true }),
        fc.double({ min: 0, max: 3, noNaN: true }),
      )
      .chain(([decade, width]) =>
        fc.array(
          fc.double({ min: 0, max: 1, noNaN: true }).map((u) => 10 ** (decade + u * width)),
          { minLength: 1, maxLength: WEIGHT_MAX - 1, size: 'max' },
        ),
      );
    fc.assert(
      fc.property(spread, fc.constantFrom(0.5, 0.9, 0.99, 1), (durations, share) => {
        const sketch = sketchOf(durations);
        const exact = exactQuantile(durations, share);
        const found = sketch.quantile(share) ?? NaN;
        expect(found).toBeGreaterThanOrEqual(exact * (1 - QUANTILE_ERROR_MAX) * (1 - 1e-9));
        // Too high only where lower buckets have become one.
        const highest = Math.max(...durations);
        if (exact > highest / 1.1 ** (BUCKETS_MAX - 2)) {
          expect(found).toBeLessThanOrEqual(exact * (1 + QUANTILE_ERROR_MAX) * (1 + 1e-9));
        }
      }),
      { numRuns: 100 },
    );
  });

  it('never holds more buckets and weight than it may', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0, max: 1e16, noNaN: true }), { maxLength: 4000, size: 'max' }),
        (durations) => {
          const sketch = sketchOf(durations);
          expect(sketch.content.buckets.length).toBeLessThanOrEqual(BUCKETS_MAX);
          expect(sketch.weight).toBeLessThan(WEIGHT_MAX);
          const total = sketch.content.buckets.reduce((sum, [, weight]) => sum + weight, 0);
          expect(total).toBeCloseTo(sketch.weight, 6);
        },
      ),
      { numRuns: 20 },
    );
  });

  it('goes on where it was written', () => {
    const durations = Array.from({ length: 700 }, (_, index) => 1000 + ((index * 7919) % 5000));
    const sketch = sketchOf(durations);
    const restored = new GapSketch();
    restored.restore(JSON.parse(JSON.stringify(sketch.content)) as typeof sketch.content);
    expect(restored.content).toEqual(sketch.content);
    expect(restored.weight).toBe(sketch.weight);
  });

  it('leaves out what makes no sense when it is restored', () => {
    const sketch = new GapSketch();
    sketch.restore({
      buckets: [
        [1.5, 3],
        [10, -1],
        [11, NaN],
        [12, 1e9],
        [20, 2],
      ],
    });
    expect(sketch.content.buckets).toEqual([[20, 2]]);
  });

  it('follows a device that has become slower within two hundred gaps', () => {
    const sketch = sketchOf(Array.from({ length: 50_000 }, () => SECOND));
    for (let count = 0; count < 12; count += 1) sketch.add(60 * SECOND);
    expect((sketch.quantile(0.99) ?? 0) / SECOND).toBeGreaterThan(50);
  });

  it('has no quantile while it is empty', () => {
    expect(new GapSketch().quantile(0.99)).toBeNull();
  });
});

describe('cadence of a device', () => {
  /** Feeds messages at these times; the deadline is three usual gaps, as `auto` has it. */
  function feed(cadence: Cadence, times: Iterable<number>): void {
    for (const time of times) {
      const usual = cadence.gapP99Micros;
      cadence.heard(time, -Infinity, usual === null ? Infinity : Math.max(3 * usual, 10 * SECOND));
    }
  }
  function* every(gap: number, count: number, start = 0): Iterable<number> {
    for (let index = 0; index < count; index += 1) yield start + index * gap;
  }

  it('is not known before twenty gaps', () => {
    const cadence = new Cadence();
    feed(cadence, every(30 * SECOND, GAPS_MIN));
    expect(cadence.gapP99Micros).toBeNull();
    feed(cadence, [GAPS_MIN * 30 * SECOND]);
    expect((cadence.gapP99Micros ?? 0) / SECOND).toBeCloseTo(30, -1);
  });

  it('takes a burst for one message', () => {
    const cadence = new Cadence();
    for (let hour = 0; hour < 30; hour += 1) feed(cadence, every(5000, 1000, hour * HOUR));
    expect((cadence.gapP99Micros ?? 0) / HOUR).toBeGreaterThan(0.9);
  });

  it('is not spoiled by one long failure of the device', () => {
    const cadence = new Cadence();
    feed(cadence, every(10 * SECOND, 26));
    feed(cadence, every(10 * SECOND, 10, 24 * HOUR));
    expect(cadence.gapP99Micros).toBeLessThan(40 * SECOND);
  });

  it('learns a slower cadence although its gaps are beyond the deadline', () => {
    const cadence = new Cadence();
    feed(cadence, every(SECOND, 5000));
    feed(cadence, every(600 * SECOND, 80, 5000 * SECOND));
    expect((cadence.gapP99Micros ?? 0) * 3).toBeGreaterThan(600 * SECOND);
  });

  it('does not learn a gap in which we could not hear', () => {
    const cadence = new Cadence();
    for (const time of every(10 * SECOND, 30)) cadence.heard(time, -Infinity, Infinity);
    cadence.heard(10 * HOUR, 9 * HOUR, Infinity);
    for (const time of every(10 * SECOND, 30, 10 * HOUR + 10 * SECOND)) {
      cadence.heard(time, 9 * HOUR, Infinity);
    }
    expect(cadence.gapP99Micros).toBeLessThan(11 * SECOND);
  });

  it('learns nothing of a clock that is set back', () => {
    const cadence = new Cadence();
    feed(cadence, every(10 * SECOND, 30, HOUR));
    feed(cadence, every(10 * SECOND, 30));
    expect(cadence.gapP99Micros).toBeLessThan(11 * SECOND);
  });

  it('is worth writing with each gap until it is known: a restart each night must not begin it anew', () => {
    let cadence = new Cadence();
    for (let night = 0; night < 2; night += 1) {
      feed(cadence, every(HOUR, 11, night * 24 * HOUR));
      expect([cadence.isDue, cadence.isUnwritten]).toEqual([true, true]);
      expect(cadence.gapP99SoFarMicros / HOUR).toBeCloseTo(1, 0);
      const { content } = cadence;
      cadence = new Cadence();
      cadence.restore(content);
    }
    expect((cadence.gapP99Micros ?? 0) / HOUR).toBeCloseTo(1, 0);
  });

  it('is worth writing once it is known, and again when something has changed', () => {
    const cadence = new Cadence();
    feed(cadence, every(10 * SECOND, GAPS_MIN + 1));
    expect([cadence.isDue, cadence.isUnwritten]).toEqual([true, true]);
    cadence.markWritten();
    feed(cadence, every(10 * SECOND, 20, (GAPS_MIN + 1) * 10 * SECOND));
    expect([cadence.isDue, cadence.isUnwritten]).toEqual([false, true]);
    feed(cadence, every(10 * SECOND, 128, HOUR));
    expect(cadence.isDue).toBe(true);
    const restored = new Cadence();
    restored.restore(cadence.content);
    expect(restored.gapP99Micros).toBe(cadence.gapP99Micros);
    expect([restored.isDue, restored.isUnwritten]).toEqual([false, false]);
  });
});

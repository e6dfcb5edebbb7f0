import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  edgeGaps,
  gapBetween,
  percentOf,
  sequenceCompleteness,
} from '../../ingest/completeness-gaps.ts';
import { rangesOf } from '../../ingest/sequence-ranges.ts';

const MINUTE = 60_000_000;

describe('the completeness of numbers', () => {
  it('lists exactly those that did not come, whatever came', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(200), { minLength: 1 }), (came) => {
        const found = sequenceCompleteness(rangesOf(came), 0);
        const lowest = Math.min(...came);
        const highest = Math.max(...came);
        const missing: number[] = [];
        for (let seq = lowest; seq <= highest; seq += 1) if (!came.includes(seq)) missing.push(seq);
        const listed = found?.gaps.flatMap(({ from, to }) =>
          Array.from({ length: to - from + 1 }, (_, index) => from + index),
        );
        expect(listed).toEqual(missing);
        expect(found).toMatchObject({
          first: lowest,
          highest,
          received: came.length,
          missing: missing.length,
          percent: percentOf(came.length, missing.length),
        });
      }),
    );
  });

  it('counts numbers that were given up as missing, without a gap', () => {
    expect(
      sequenceCompleteness(
        [
          [0, 100],
          [110, 120],
        ],
        25,
      ),
    ).toEqual({
      first: 0,
      highest: 119,
      received: 85,
      missing: 35,
      percent: 70.833,
      gaps: [{ from: 100, to: 109 }],
    });
    expect(sequenceCompleteness([], 0)).toBeNull();
  });

  it('is 100 percent only when nothing is missing', () => {
    expect(percentOf(10, 0)).toBe(100);
    expect(percentOf(0, 0)).toBe(100);
    expect(percentOf(0, 5)).toBe(0);
    expect(percentOf(999_999_999, 1)).toBe(99.999);
    expect(percentOf(2, 1)).toBe(66.666);
  });
});

describe('the completeness of times', () => {
  it('has a gap above one and a half cadences, from when the first was due', () => {
    expect(gapBetween(0, 1.5 * MINUTE, MINUTE)).toBeNull();
    expect(gapBetween(0, 1.5 * MINUTE + 1, MINUTE)).toEqual({
      fromMicros: MINUTE,
      toMicros: 1.5 * MINUTE + 1,
      missing: 1,
    });
    expect(gapBetween(0, 10 * MINUTE + 9, MINUTE)).toMatchObject({ missing: 9 });
  });

  it('counts what is missing at the ends of the window, and nothing before the first reading', () => {
    const window = { fromMicros: 100 * MINUTE, endMicros: 110 * MINUTE };
    const none = { beforeMicros: null, firstMicros: null, lastMicros: null };
    expect(edgeGaps({ ...window, ...none }, MINUTE)).toEqual([]);
    const young = { ...window, ...none, firstMicros: 105 * MINUTE, lastMicros: 109 * MINUTE };
    expect(edgeGaps(young, MINUTE)).toEqual([]);
    expect(edgeGaps({ ...young, beforeMicros: 99 * MINUTE }, MINUTE)).toEqual([
      { fromMicros: 100 * MINUTE, toMicros: 105 * MINUTE, missing: 5 },
    ]);
    expect(edgeGaps({ ...young, beforeMicros: 7 * MINUTE }, MINUTE)).toEqual([
      { fromMicros: 100 * MINUTE, toMicros: 105 * MINUTE, missing: 5 },
    ]);
    expect(edgeGaps({ ...young, lastMicros: 107 * MINUTE }, MINUTE)).toEqual([
      { fromMicros: 108 * MINUTE, toMicros: 110 * MINUTE, missing: 2 },
    ]);
    expect(edgeGaps({ ...window, ...none, beforeMicros: 7 * MINUTE }, MINUTE)).toEqual([
      { fromMicros: 100 * MINUTE, toMicros: 110 * MINUTE, missing: 10 },
    ]);
  });
});

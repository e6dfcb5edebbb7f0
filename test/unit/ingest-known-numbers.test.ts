import { describe, expect, it } from 'vitest';
import { KnownNumbers } from '../../ingest/known-numbers.ts';

describe('KnownNumbers', () => {
  it('knows a number although much higher ones have come since', () => {
    const numbers = new KnownNumbers();
    for (const seq of [7, 5, 100_000]) numbers.add(seq);
    expect([5, 7, 100_000].map((seq) => numbers.has(seq))).toEqual([true, true, true]);
    expect(numbers.has(6)).toBe(false);
  });

  it('forgets the one noted first beyond 1024, and no other', () => {
    const numbers = new KnownNumbers();
    for (let seq = 0; seq <= 1024; seq += 1) numbers.add(seq);
    expect([0, 1, 1024].map((seq) => numbers.has(seq))).toEqual([false, true, true]);
  });

  it('counts a number once that is noted again', () => {
    const numbers = new KnownNumbers();
    for (let time = 0; time < 3; time += 1) {
      for (let seq = 0; seq < 1024; seq += 1) numbers.add(seq);
    }
    expect(numbers.has(0)).toBe(true);
  });
});

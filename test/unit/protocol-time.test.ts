import { describe, expect, it } from 'vitest';
import { ReceiptClock, resolveTime } from '../../firmware-protocol/time.ts';

const limits = { ageMaxMs: 30 * 86_400_000, aheadMaxMs: 300_000 };
const now = Date.parse('2026-11-21T08:00:00Z') * 1000;
const stated = { tsMicros: null, ageMs: null, fromLast: 0 };
const second = 1_000_000;

describe('time of a sample', () => {
  it('is the ts of the device', () => {
    const tsMicros = now - 5 * second;
    expect(resolveTime({ ...stated, tsMicros, ageMs: 1 }, now, limits)).toEqual({
      timeMicros: tsMicros,
      quality: 0,
    });
  });

  it('is receipt minus age without a ts', () => {
    expect(resolveTime({ ...stated, ageMs: 59_000.5 }, now, limits)).toEqual({
      timeMicros: now - 59_000_500,
      quality: 1,
    });
  });

  it('is the receipt without both', () => {
    expect(resolveTime(stated, now, limits)).toEqual({ timeMicros: now, quality: 2 });
  });

  it.each([
    ['before 2020', Date.parse('2020-01-01T00:00:00Z') * 1000 - 1],
    ['negative', -1],
    ['at uptime', 812_000],
    ['over the limit ahead', now + 300 * second + 1],
    ['beyond any calendar', Number.MAX_SAFE_INTEGER],
  ])('is the receipt, marked, when ts is %s', (_, tsMicros) => {
    expect(resolveTime({ ...stated, tsMicros }, now, limits)).toEqual({
      timeMicros: now,
      quality: 3,
    });
  });

  it('may lie ahead and back as far as the limits say, and no microsecond further', () => {
    const oldest = now - limits.ageMaxMs * 1000;
    expect(resolveTime({ ...stated, tsMicros: now + 300 * second }, now, limits)).toMatchObject({
      quality: 0,
    });
    expect(resolveTime({ ...stated, tsMicros: oldest }, now, limits)).toMatchObject({ quality: 0 });
    expect(resolveTime({ ...stated, tsMicros: oldest - 1 }, now, limits)).toBe('too_old');
    expect(resolveTime({ ...stated, ageMs: limits.ageMaxMs }, now, limits)).toMatchObject({
      quality: 1,
    });
    expect(resolveTime({ ...stated, ageMs: limits.ageMaxMs + 1 }, now, limits)).toBe('too_old');
    expect(resolveTime({ ...stated, ageMs: Infinity }, now, limits)).toBe('too_old');
    expect(resolveTime({ ...stated, ageMs: -Infinity }, now, limits)).toMatchObject({ quality: 3 });
  });

  it('is distinct for samples of one message that all fall back to receipt', () => {
    const times = [3, 2, 1, 0].map((fromLast) => resolveTime({ ...stated, fromLast }, now, limits));
    expect(times).toEqual([3, 2, 1, 0].map((back) => ({ timeMicros: now - back, quality: 2 })));
  });
});

describe('receipt clock', () => {
  it('follows the wall clock when it moves on', () => {
    const clock = new ReceiptClock();
    expect(clock.next(now, 1)).toBe(now);
    expect(clock.next(now + 1000, 1)).toBe(now + 1000);
  });

  it('leaves room for every sample of every message in the same microsecond', () => {
    const clock = new ReceiptClock();
    const times = [1, 500, 0, 1, 20].flatMap((samples) => {
      const receivedMicros = clock.next(now, samples);
      return Array.from({ length: samples }, (_, fromLast) => receivedMicros - fromLast);
    });
    expect(new Set(times).size).toBe(522);
    expect(Math.max(...times)).toBeLessThan(now + 600);
  });

  it('waits for a wall clock that is set back by a few seconds', () => {
    const clock = new ReceiptClock();
    clock.next(now, 1);
    expect(clock.next(now - 9 * second, 1)).toBe(now + 1);
    expect(clock.next(now - 8 * second, 3)).toBe(now + 4);
    expect(clock.next(now + second, 1)).toBe(now + second);
  });

  it('starts anew when the wall clock is set back further, and meets no time that it gave before', () => {
    const clock = new ReceiptClock();
    const times = new Set<number>();
    let given = 0;
    for (let setBack = 0; setBack < 5; setBack += 1) {
      for (let at = 0; at < 3600; at += 1) {
        times.add(clock.next(now + at * 10_000, 1));
        given += 1;
      }
    }
    expect(times.size).toBe(given);
    expect(Math.max(...times)).toBeLessThan(now + 3600 * 10_000 + 1000);
  });
});

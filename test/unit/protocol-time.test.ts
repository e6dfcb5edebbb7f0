import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  firstResidue,
  isLate,
  newestTimes,
  NO_BASIS,
  ReceiptClock,
  resolveTime,
  type StatedTime,
  type TimeBasis,
} from '../../firmware-protocol/time.ts';

const limits = { ageMaxMs: 30 * 86_400_000, aheadMaxMs: 300_000 };
const now = Date.parse('2026-11-21T08:00:00Z') * 1000;
const second = 1_000_000;
const hour = 3600 * second;
const day = 24 * hour;
const nothing: StatedTime = { tsMicros: null, ageMs: null, upMs: null, fromLast: 0 };

type Stated = Partial<StatedTime>;

/** Resolves all samples of a message. */
function resolve(stated: readonly Stated[], receivedMicros = now, basis: TimeBasis = NO_BASIS) {
  const samples = stated.map((sample, at) => ({
    ...nothing,
    fromLast: stated.length - 1 - at,
    ...sample,
  }));
  const arrival = { receivedMicros, basis, newest: newestTimes(samples) };
  return samples.map((sample) => resolveTime(sample, arrival, limits));
}

function resolveOne(stated: Stated, receivedMicros = now, basis: TimeBasis = NO_BASIS) {
  return resolve([stated], receivedMicros, basis)[0];
}

function timesOf(resolved: ReturnType<typeof resolve>): number[] {
  return resolved.map((one) => (one === 'too_old' ? NaN : one.timeMicros));
}

function qualitiesOf(resolved: ReturnType<typeof resolve>): unknown[] {
  return resolved.map((one) => (one === 'too_old' ? one : one.quality));
}

const isAheadBy = (offsetMicros: number): TimeBasis => ({ offsetMicros, bootMicros: null });

describe('time of a sample', () => {
  it('is the ts of the device', () => {
    const tsMicros = now - 5 * second;
    expect(resolveOne({ tsMicros, ageMs: 1, upMs: 1 })).toEqual({
      timeMicros: tsMicros,
      quality: 0,
    });
  });

  it('is receipt minus age without a ts, to the millisecond', () => {
    const resolved = resolve([{ ageMs: 59_000, upMs: 1 }]);
    expect(qualitiesOf(resolved)).toEqual([1]);
    expect(Math.floor((timesOf(resolved)[0] ?? 0) / 1000)).toBe(now / 1000 - 59_000);
  });

  it('is the receipt when nothing is said', () => {
    expect(resolveOne({})).toEqual({ timeMicros: now, quality: 2 });
  });

  it.each([
    ['before 2020', Date.parse('2020-01-01T00:00:00Z') * 1000 - 1],
    ['negative', -1],
    ['at uptime', 812_000],
    ['over the limit ahead', now + 300 * second + 1],
    ['of 2106 (D-13)', 4_294_967_295 * second],
    ['beyond any calendar (D-13)', Number.MAX_SAFE_INTEGER],
  ])('is the receipt, marked, when ts is %s', (_, tsMicros) => {
    expect(resolveOne({ tsMicros })).toEqual({ timeMicros: now, quality: 3 });
  });

  it('is told by age, or by up, when ts cannot be right', () => {
    expect(resolveOne({ tsMicros: 812_000, ageMs: 1000 })).toMatchObject({ quality: 1 });
    expect(resolveOne({ tsMicros: 812_000, upMs: 812 })).toMatchObject({ quality: 1 });
  });

  it('may lie ahead and back as far as the limits say, and no microsecond further', () => {
    const oldest = now - limits.ageMaxMs * 1000;
    expect(resolveOne({ tsMicros: now + 300 * second })).toMatchObject({ quality: 0 });
    expect(resolveOne({ tsMicros: oldest })).toMatchObject({ quality: 0 });
    expect(resolveOne({ tsMicros: oldest - 1 })).toBe('too_old');
    expect(resolveOne({ ageMs: limits.ageMaxMs })).toMatchObject({ quality: 1 });
    expect(resolveOne({ ageMs: limits.ageMaxMs + 1 })).toBe('too_old');
    expect(resolveOne({ ageMs: Infinity })).toBe('too_old');
    expect(resolveOne({ ageMs: -Infinity })).toMatchObject({ quality: 3 });
  });

  it('is distinct for samples of one message that all fall back to receipt', () => {
    expect(resolve([{}, {}, {}, {}])).toEqual(
      [3, 2, 1, 0].map((back) => ({ timeMicros: now - back, quality: 2 })),
    );
    const stuck = resolve([{ tsMicros: 5 }, { tsMicros: 5 }, { tsMicros: 5 }]);
    expect(timesOf(stuck)).toEqual([now - 2, now - 1, now]);
  });

  it('is late from two minutes on', () => {
    expect(isLate(now - 120 * second, now)).toBe(false);
    expect(isLate(now - 120 * second - 1, now)).toBe(true);
    expect(isLate(now + hour, now)).toBe(false);
  });
});

describe('a clock that is wrong, of which nothing is known', () => {
  it.each([
    ['was never set', 812 * second],
    ['is three hours ahead', now + 3 * hour],
    ['is in 2106 (D-13)', 4_294_967_295 * second],
  ])('that %s: the newest is at receipt and the others keep their distances', (_, newest) => {
    const series = [60, 59, 1, 0].map((back) => ({ tsMicros: newest - back * second }));
    const resolved = resolve(series);
    expect(qualitiesOf(resolved)).toEqual([3, 3, 3, 3]);
    const [first = 0, other = 0, , last = 0] = timesOf(resolved);
    expect(last).toBe(now);
    expect(Math.abs(last - first - 60 * second)).toBeLessThan(1000);
    expect(other - first).toBeGreaterThan(second - 500);
  });

  it('moves the samples of its message that could be right as well', () => {
    const series = [10, 5, 0].map((back) => ({ tsMicros: now + (3 - back) * hour }));
    const resolved = resolve(series);
    expect(qualitiesOf(resolved)).toEqual([3, 3, 3]);
    expect(Math.abs((timesOf(resolved)[0] ?? 0) - (now - 10 * hour))).toBeLessThan(1000);
  });

  it('that is set in the middle of a batch leaves the samples behind it as they are', () => {
    const [unset, before, after] = resolve([
      { tsMicros: 100 * second },
      { tsMicros: 160 * second },
      { tsMicros: now - second },
    ]);
    expect(after).toEqual({ timeMicros: now - second, quality: 0 });
    expect(before).toEqual({ timeMicros: now - 1, quality: 3 });
    expect(unset).toMatchObject({ quality: 3 });
  });

  it('that stands out in one sample does not take the others with it (D-13)', () => {
    const resolved = resolve([
      { tsMicros: now - 2 * second },
      { tsMicros: Number.MAX_SAFE_INTEGER },
      { tsMicros: now - second },
    ]);
    expect(resolved).toEqual([
      { timeMicros: now - 2 * second, quality: 0 },
      { timeMicros: now - 1, quality: 3 },
      { timeMicros: now - second, quality: 0 },
    ]);
  });

  it('makes no time outside the limits, whatever it says (D-13)', () => {
    const ts = fc.oneof(
      fc.integer({ min: -Number.MAX_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER }),
      fc.integer({ min: now - 40 * day, max: now + 40 * day }),
    );
    const offset = fc.option(fc.integer({ min: 2 * second, max: Number.MAX_SAFE_INTEGER - now }));
    fc.assert(
      fc.property(fc.array(ts, { minLength: 1, maxLength: 20 }), offset, (all, offsetMicros) => {
        const basis = { offsetMicros, bootMicros: null };
        for (const one of resolve(
          all.map((tsMicros) => ({ tsMicros })),
          now,
          basis,
        )) {
          if (one === 'too_old') continue;
          expect(one.timeMicros).toBeGreaterThanOrEqual(now - limits.ageMaxMs * 1000);
          expect(one.timeMicros).toBeLessThanOrEqual(now + limits.aheadMaxMs * 1000);
          expect(Number.isSafeInteger(one.timeMicros)).toBe(true);
        }
      }),
    );
  });
});

describe('a clock that is known to be ahead', () => {
  const basis = isAheadBy(3 * hour + 389);

  it('is corrected, in a batch and late as well', () => {
    const stated = [20 * hour, 60 * second, 0].map((back) => ({ tsMicros: now + 3 * hour - back }));
    expect(resolve(stated, now, basis)).toEqual(
      [20 * hour, 60 * second, 0].map((back) => ({ timeMicros: now - back - 389, quality: 4 })),
    );
    const late = resolveOne({ tsMicros: now + 3 * hour }, now + 40 * second, basis);
    expect(late).toEqual({ timeMicros: now - 389, quality: 4 });
  });

  it('is corrected when it is only some seconds ahead, however late the message is', () => {
    const few = isAheadBy(5 * second + 389);
    for (const lateness of [0, 5, 60, 7200].map((s) => s * second)) {
      expect(resolveOne({ tsMicros: now + 5 * second }, now + lateness, few)).toMatchObject({
        timeMicros: now - 389,
        quality: 4,
      });
    }
  });

  it('is believed again as soon as it seems right: somebody has set it', () => {
    expect(resolveOne({ tsMicros: now - second }, now, basis)).toEqual({
      timeMicros: now - second,
      quality: 0,
    });
  });

  it('is not corrected to a time ahead: the clock has moved once more', () => {
    expect(resolveOne({ tsMicros: now + 4 * hour }, now, basis)).toEqual({
      timeMicros: now,
      quality: 3,
    });
  });

  it('is too old where what it says less the offset is', () => {
    expect(
      resolve([{ tsMicros: now - 30 * day }, { tsMicros: now + 3 * hour }], now, basis),
    ).toEqual(['too_old', { timeMicros: now - 389, quality: 4 }]);
  });
});

describe('a sample with up', () => {
  it('counts from the boot', () => {
    const basis = { offsetMicros: null, bootMicros: now - 812_000_000 + 389 };
    expect(resolve([{ upMs: 752_000 }, { upMs: 811_500.5 }], now, basis)).toEqual([
      { timeMicros: now - 60 * second + 389, quality: 1 },
      { timeMicros: now - 499_500 + 389, quality: 1 },
    ]);
  });

  it('keeps its distance to the last of its message while the boot is not known', () => {
    const [first = 0, last = 0] = timesOf(resolve([{ upMs: 752_000 }, { upMs: 812_000 }]));
    expect(Math.floor(last / 1000)).toBe(now / 1000);
    expect(Math.floor(first / 1000)).toBe(now / 1000 - 60_000);
  });

  it('does not believe in a boot that would put it into the future', () => {
    const basis = { offsetMicros: null, bootMicros: now };
    const [time = 0] = timesOf(resolve([{ upMs: 812_000 }], now, basis));
    expect(Math.floor(time / 1000)).toBe(now / 1000);
  });

  it('is too old as all others are', () => {
    expect(resolve([{ upMs: 0 }, { upMs: 31 * 86_400_000 }])[0]).toBe('too_old');
  });
});

describe('times that count from receipt', () => {
  it('are the same when a message is read again', () => {
    fc.assert(
      fc.property(fc.nat(1_000_000), fc.double({ min: 0, max: 1e6, noNaN: true }), (at, ageMs) => {
        const stated = [{ ageMs: ageMs + 1000 }, { ageMs }, { upMs: 5 }, {}];
        expect(resolve(stated, now + at)).toEqual(resolve(stated, now + at));
      }),
    );
  });

  it('differ for every two messages within half a second, and in one millisecond', () => {
    const sameMs = Array.from({ length: 400 }, (_, at) =>
      timesOf(resolve([{ ageMs: 5 }], now + at)),
    );
    expect(new Set(sameMs.flat()).size).toBe(400);
    // Each is so much older that all would have one time.
    const apart = Array.from({ length: 500 }, (_, ms) =>
      timesOf(resolve([{ ageMs: ms }], now + ms * 1000)),
    );
    expect(new Set(apart.flat()).size).toBe(500);
  });

  it('stay in their millisecond and in their order within a message', () => {
    const stated = Array.from({ length: 500 }, () => ({ ageMs: 7 }));
    const times = timesOf(resolve(stated));
    expect(new Set(times).size).toBe(500);
    expect(times.toSorted((a, b) => a - b)).toEqual(times);
    expect(new Set(times.map((time) => Math.floor(time / 1000)))).toEqual(
      new Set([now / 1000 - 7]),
    );
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

  it('waits for a wall clock that is set back by a few seconds (N-16)', () => {
    const clock = new ReceiptClock();
    clock.next(now, 1);
    expect(clock.next(now - 9 * second, 1)).toBe(now + 1);
    expect(clock.next(now - 8 * second, 3)).toBe(now + 4);
    expect(clock.next(now + second, 1)).toBe(now + second);
  });

  it('starts anew when the wall clock is set back further, and meets no time that it gave before (N-16)', () => {
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

  it('meets no time of before a restart when the wall clock was set back an hour meanwhile (N-16)', () => {
    const startedMs = now / 1000 - 86_400_000;
    const before = new ReceiptClock(firstResidue(startedMs));
    // Restarted two minutes later, by a clock that is an hour behind.
    const after = new ReceiptClock(firstResidue(now / 1000 + 120_000 - 3_600_000));
    const times = new Set<number>();
    for (const clock of [before, after]) {
      for (let at = 0; at < 3600; at += 1) times.add(clock.next(now + at * 10_000, 1));
    }
    expect(times.size).toBe(7200);
  });

  it('begins at another place in 995 of 1000 starts, and always below a millisecond', () => {
    let same = 0;
    for (let start = 0; start < 100_000; start += 1) {
      const residue = firstResidue(now / 1000 + start * 1000);
      expect(residue).toBeGreaterThanOrEqual(0);
      expect(residue).toBeLessThan(1000);
      if (residue === firstResidue(now / 1000 + start * 1000 - 3_600_000)) same += 1;
    }
    expect(same).toBeLessThan(500);
  });
});

import fc from 'fast-check';
import type pg from 'pg';
import { describe, expect, it } from 'vitest';
import { HOUR_MS, LEVELS, type Level } from '../../ingest/aggregates/levels.ts';
import { makeSpans, type DeviceSpan, type Skip } from '../../ingest/aggregates/skip.ts';

const MINUTE_MS = 60_000;
const client = {
  query: () => Promise.resolve({ rows: [{ is_new: true }] }),
} as unknown as pg.Client;
const overflow = (): Error =>
  Object.assign(new Error('value out of range: overflow'), { code: '22003' });

interface Bad {
  readonly deviceId: number;
  readonly atMs: number;
}
const isIn = ({ deviceId, fromMs, toMs }: DeviceSpan, bad: Bad): boolean =>
  bad.deviceId === deviceId && bad.atMs >= fromMs && bad.atMs < toMs;

async function run(spans: readonly DeviceSpan[], bads: readonly Bad[], level: Level = LEVELS[0]) {
  const skips: Skip[] = [];
  let statements = 0;
  const make = (part: readonly DeviceSpan[]): Promise<void> => {
    statements += 1;
    const isBad = part.some((span) => bads.some((bad) => isIn(span, bad)));
    return isBad ? Promise.reject(overflow()) : Promise.resolve();
  };
  const onSkip = (skip: Skip) => void skips.push(skip);
  const made = await makeSpans({ client, level, make, onSkip }, spans);
  return { made, skips, statements };
}

const minutesOf = ({ deviceId, fromMs, toMs }: DeviceSpan): string[] =>
  Array.from(
    { length: (toMs - fromMs) / MINUTE_MS },
    (_, index) => `${deviceId} ${fromMs / MINUTE_MS + index}`,
  );

describe('spans with values that the database cannot compute with', () => {
  it('are left out by the hour of a device, and all others are made once', async () => {
    const minutes = fc.nat(7 * 60);
    const spansOf = fc.uniqueArray(
      fc.tuple(fc.nat(20), minutes, fc.integer({ min: 1, max: 400 })),
      {
        selector: ([deviceId]) => deviceId,
      },
    );
    const badsOf = fc.array(fc.tuple(fc.nat(20), fc.nat(12 * 60)), { maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(spansOf, badsOf, async (drawn, badDrawn) => {
        const spans = drawn.map(([deviceId, from, length]) => ({
          ...{ deviceId, fromMs: from * MINUTE_MS, toMs: (from + length) * MINUTE_MS },
        }));
        const bads = badDrawn.map(([deviceId, at]) => ({ deviceId, atMs: at * MINUTE_MS }));
        const { made, skips } = await run(spans, bads);
        const left = new Set(skips.map(({ deviceId, hourMs }) => `${deviceId} ${hourMs}`));
        const expected = new Set(
          bads
            .filter((bad) => spans.some((span) => isIn(span, bad)))
            .map(({ deviceId, atMs }) => `${deviceId} ${Math.floor(atMs / HOUR_MS) * HOUR_MS}`),
        );
        expect(left).toEqual(expected);
        expect(skips).toHaveLength(left.size);
        const isLeft = (minute: string): boolean => {
          const [deviceId, at] = minute.split(' ').map(Number);
          return left.has(`${deviceId} ${Math.floor(Number(at) / 60) * HOUR_MS}`);
        };
        expect(made.flatMap(minutesOf).toSorted()).toEqual(
          spans
            .flatMap(minutesOf)
            .filter((minute) => !isLeft(minute))
            .toSorted(),
        );
      }),
    );
  });

  it('are found with few statements', async () => {
    const spans = Array.from({ length: 2000 }, (_, deviceId) => ({
      ...{ deviceId, fromMs: 0, toMs: 6 * HOUR_MS },
    }));
    const { skips, statements } = await run(spans, [{ deviceId: 1234, atMs: 3 * HOUR_MS + 1 }]);
    expect(skips).toMatchObject([{ level: '1m', deviceId: 1234, hourMs: 3 * HOUR_MS }]);
    expect(statements).toBeLessThan(40);
  });

  it('are left out by the day in aggregates of days', async () => {
    const span = { deviceId: 1, fromMs: 0, toMs: 72 * HOUR_MS };
    const { made, skips } = await run([span], [{ deviceId: 1, atMs: 25 * HOUR_MS }], LEVELS[2]);
    expect(skips).toMatchObject([{ level: '1d', hourMs: 24 * HOUR_MS }]);
    expect(made.map(({ fromMs }) => fromMs / HOUR_MS).toSorted((a, b) => a - b)).toEqual([0, 48]);
  });

  it('are not what any other fault is taken for', async () => {
    const gone = Object.assign(new Error('terminated'), { code: '57P01' });
    const make = () => Promise.reject(gone);
    const maker = { client, level: LEVELS[0], make, onSkip: () => expect.unreachable() };
    const span = { deviceId: 1, fromMs: 0, toMs: HOUR_MS };
    await expect(makeSpans(maker, [span])).rejects.toBe(gone);
  });
});

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatMicros, parseMicros } from '../../api/time-text.ts';

const EIGHT = Date.UTC(2026, 10, 21, 8) * 1000;

describe('formatMicros', () => {
  it('writes three decimals, and six when the microseconds need them', () => {
    expect(formatMicros(EIGHT)).toBe('2026-11-21T08:00:00.000Z');
    expect(formatMicros(EIGHT + 250_000)).toBe('2026-11-21T08:00:00.250Z');
    expect(formatMicros(EIGHT + 250_001)).toBe('2026-11-21T08:00:00.250001Z');
    expect(formatMicros(-1)).toBe('1969-12-31T23:59:59.999999Z');
  });

  it('writes what parseMicros reads back to the microsecond', () => {
    fc.assert(
      fc.property(fc.integer({ min: -6e15, max: 9e15 }), (timeMicros) => {
        expect(parseMicros(formatMicros(timeMicros))).toBe(timeMicros);
      }),
    );
  });
});

describe('parseMicros', () => {
  it.each([
    ['2026-11-21T08:00:00Z', EIGHT],
    ['2026-11-21T08:00:00.000Z', EIGHT],
    ['2026-11-21t08:00z', EIGHT],
    ['2026-11-21T09:30:00+01:30', EIGHT],
    ['2026-11-21T09:30:00 01:30', EIGHT],
    ['2026-11-21T06:00:00-0200', EIGHT],
    ['2026-11-21T08:00:00.123456789Z', EIGHT + 123_456],
    ['2026-11-21', Date.UTC(2026, 10, 21) * 1000],
    ['1795248000000', 1_795_248_000_000_000],
    ['-1', -1000],
    ['9999-12-31T00:00:00Z', Number.MAX_SAFE_INTEGER],
  ])('reads %s', (text, timeMicros) => {
    expect(parseMicros(text)).toBe(timeMicros);
  });

  it.each([
    '',
    'now',
    '2026-11-21T08:00:00',
    '2026-02-30',
    '2026-02-30T00:00:00Z',
    '2026-13-01',
    '2026-11-21T25:00:00Z',
    '1e12',
    '1.5',
    'NaN',
    '21.11.2026',
    "2026-11-21'; DROP TABLE reading; --",
  ])('refuses "%s"', (text) => {
    expect(parseMicros(text)).toBeNull();
  });
});

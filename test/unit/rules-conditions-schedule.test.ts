import { describe, expect, it } from 'vitest';
import { clockText, isTimeZone, parseClock, WallClock } from '../../rules/condition/schedule.ts';
import { WatchedCondition } from '../support/condition.ts';

const secondsOf = (iso: string): number => Date.parse(iso) / 1000;

function inside(schedule: object, iso: string): boolean {
  const json = { schedule: { timeZone: 'Europe/Berlin', ...schedule } };
  const levels = [new WatchedCondition(json), new WatchedCondition({ ...json, outside: true })].map(
    (condition) => condition.tick(secondsOf(iso)),
  );
  expect(new Set(levels)).toEqual(new Set([0, 2]));
  return levels[0] === 2;
}

describe('schedule', () => {
  it.each([
    ['2026-01-05T06:59:59Z', false],
    ['2026-01-05T07:00:00Z', true],
    ['2026-01-05T16:59:59Z', true],
    ['2026-01-05T17:00:00Z', false],
    ['2026-07-06T06:00:00Z', true],
    ['2026-07-06T15:59:00Z', true],
    ['2026-07-06T16:00:00Z', false],
    ['2026-07-05T10:00:00Z', false],
  ])('of weekdays 8 to 18 in Berlin, at %s: %s', (iso, is) => {
    const days = ['mon', 'tue', 'wed', 'thu', 'fri'];
    expect(inside({ days, from: '08:00', to: '18:00' }, iso)).toBe(is);
  });

  it.each([
    ['2026-01-09T20:59:00Z', false],
    ['2026-01-09T21:00:00Z', true],
    ['2026-01-09T23:30:00Z', true],
    ['2026-01-10T04:59:00Z', true],
    ['2026-01-10T05:00:00Z', false],
    ['2026-01-09T03:00:00Z', false],
    ['2026-01-10T21:30:00Z', false],
  ])('over midnight belongs to the day it begins on, Friday 22 to 6, at %s: %s', (iso, is) => {
    expect(inside({ days: ['fri'], from: '22:00', to: '06:00' }, iso)).toBe(is);
  });

  it('over midnight goes from Sunday to Monday', () => {
    const nights = { days: ['sun'], from: '22:00', to: '06:00' };
    expect(inside(nights, '2026-01-12T01:00:00Z')).toBe(true);
    expect(inside(nights, '2026-01-11T01:00:00Z')).toBe(false);
  });

  it.each([
    // 2026-03-29: after 01:59:59 comes 03:00:00, at 01:00:00 UTC.
    ['01:00', '02:00', '2026-03-29T00:59:59Z', true],
    ['01:00', '02:00', '2026-03-29T01:00:00Z', false],
    ['02:00', '03:00', '2026-03-29T00:59:59Z', false],
    ['02:00', '03:00', '2026-03-29T01:00:00Z', false],
    ['03:00', '04:00', '2026-03-29T01:00:00Z', true],
    ['22:00', '06:00', '2026-03-29T03:59:59Z', true],
    ['22:00', '06:00', '2026-03-29T04:00:00Z', false],
  ])('skips the hour that summer time takes away: %s to %s at %s: %s', (from, to, iso, is) => {
    expect(inside({ from, to }, iso)).toBe(is);
  });

  it.each([
    // 2026-10-25: after 02:59:59 comes 02:00:00 again, at 01:00:00 UTC.
    ['02:00', '03:00', '2026-10-24T23:59:59Z', false],
    ['02:00', '03:00', '2026-10-25T00:00:00Z', true],
    ['02:00', '03:00', '2026-10-25T00:59:59Z', true],
    ['02:00', '03:00', '2026-10-25T01:00:00Z', true],
    ['02:00', '03:00', '2026-10-25T01:59:59Z', true],
    ['02:00', '03:00', '2026-10-25T02:00:00Z', false],
    ['22:00', '06:00', '2026-10-25T04:59:59Z', true],
    ['22:00', '06:00', '2026-10-25T05:00:00Z', false],
  ])('has the hour that winter time gives twice: %s to %s at %s: %s', (from, to, iso, is) => {
    expect(inside({ from, to }, iso)).toBe(is);
  });

  it('knows zones that differ by quarters of an hour, and the whole day', () => {
    const nepal = { timeZone: 'Asia/Kathmandu', from: '06:00', to: '07:00' };
    expect(inside(nepal, '2026-05-01T00:15:00Z')).toBe(true);
    expect(inside(nepal, '2026-05-01T00:14:59Z')).toBe(false);
    expect(inside({ days: ['fri'] }, '2026-05-01T21:59:59Z')).toBe(true);
    expect(inside({ days: ['fri'] }, '2026-05-01T22:00:00Z')).toBe(false);
  });

  it('holds in any of several windows', () => {
    const windows = [{ days: ['sat', 'sun'] }, { days: ['mon'], from: '00:00', to: '06:00' }];
    expect(inside({ windows }, '2026-05-03T12:00:00Z')).toBe(true);
    expect(inside({ windows }, '2026-05-04T03:59:00Z')).toBe(true);
    expect(inside({ windows }, '2026-05-04T04:00:00Z')).toBe(false);
  });

  it('answers the same for times in any order, cached or not', () => {
    const json = { schedule: { timeZone: 'Europe/Berlin', from: '02:30', to: '03:10' } };
    const condition = new WatchedCondition(json);
    const start = secondsOf('2026-10-24T22:00:00Z');
    const minutes = Array.from({ length: 150 }, (_, n) => ((n * 7919) % 150) * 4);
    for (const minute of [...minutes, ...minutes.toReversed()]) {
      const level = condition.tick(start + minute * 60);
      expect(level).toBe(new WatchedCondition(json).tick(start + minute * 60));
    }
  });

  it('is unknown where there are no dates, and throws nothing', () => {
    const json = { schedule: { timeZone: 'UTC' } };
    for (const when of [json, { not: json }]) {
      const condition = new WatchedCondition(when);
      expect([condition.tick(-Infinity), condition.tick(1e300), condition.tick(NaN)]).toEqual([
        0, 0, 0,
      ]);
      expect(condition.operands()).toEqual([]);
    }
  });

  it('says the time on the wall and the window', () => {
    const condition = new WatchedCondition({
      schedule: { timeZone: 'Europe/Berlin', days: ['mon', 'sun'], from: '22:00', to: '06:00' },
      outside: true,
    });
    condition.tick(secondsOf('2026-10-25T01:05:00Z'));
    expect(condition.words()).toEqual([
      'time in Europe/Berlin | Sun 02:05 | outside Mon Sun 22:00-06:00 | holds',
    ]);
  });
});

describe('clock', () => {
  it('reads and writes times of the day', () => {
    expect(['00:00', '07:05', '23:59', '24:00'].map(parseClock)).toEqual([0, 425, 1439, 1440]);
    expect(['24:01', '7:05', '12:60', '', '12:00 '].map(parseClock)).toEqual(Array(5).fill(null));
    expect([0, 425, 1440].map(clockText)).toEqual(['00:00', '07:05', '24:00']);
  });

  it('knows which time zones there are', () => {
    expect(['UTC', 'Europe/Berlin', 'Mars/Base', '', 'x'].map(isTimeZone)).toEqual([
      true,
      true,
      false,
      false,
      false,
    ]);
  });

  it('agrees with the offsets that were in force, every hour of a year', () => {
    const clock = new WallClock('Europe/Berlin');
    const [summer, winter] = ['2026-03-29T01:00:00Z', '2026-10-25T01:00:00Z'].map(secondsOf);
    for (let hour = 0; hour < 365 * 24; hour += 1) {
      const seconds = secondsOf('2026-01-01T00:30:00Z') + hour * 3600;
      const isSummer = seconds >= (summer ?? 0) && seconds < (winter ?? 0);
      const local = new Date((seconds + (isSummer ? 7200 : 3600)) * 1000);
      expect(clock.at(seconds * 1_000_000)).toEqual({
        day: local.getUTCDay() === 0 ? 7 : local.getUTCDay(),
        minute: local.getUTCHours() * 60 + local.getUTCMinutes(),
      });
    }
  });
});

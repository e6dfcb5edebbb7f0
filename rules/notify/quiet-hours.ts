import { z } from 'zod';
import type { Schedule } from '../condition/condition.ts';
import { isInside, isTimeZone, parseClock, WallClock } from '../condition/schedule.ts';
import { SEVERITIES } from '../severity.ts';

const DAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const;
const WINDOWS_MAX = 14;
/** Time zones have some 600 names; beyond it they are made anew each time. */
const CLOCKS_MAX = 1000;

const timeOfDay = z
  .string()
  .refine((text) => parseClock(text) !== null, 'must be a time such as 22:00');

/** Times of a week as the API has them: windows of local time, over midnight where `to` is not later. */
export const weekTimesSchema = z.strictObject({
  timeZone: z.string().max(64).refine(isTimeZone, 'must be a time zone such as Europe/Berlin'),
  windows: z
    .array(
      z.strictObject({
        days: z.array(z.enum(DAYS)).min(1).max(7),
        from: timeOfDay,
        to: timeOfDay,
      }),
    )
    .min(1)
    .max(WINDOWS_MAX),
});

/** Quiet hours of a route as the API has them. */
export const quietHoursSchema = weekTimesSchema.extend({
  except: z
    .enum(SEVERITIES)
    .nullable()
    .default('critical')
    .describe('Alerts of this severity and worse are told all the same; null: none are.'),
});

/** Quiet hours of a route. */
export type QuietHours = z.output<typeof quietHoursSchema>;

/**
 * Whether a moment lies in such times, by the clock on the wall there: an hour that a change of the
 * clocks skips is skipped, and one that comes twice counts twice.
 */
export function isWithin(times: Pick<QuietHours, 'timeZone' | 'windows'>, nowMs: number): boolean {
  return isInside(scheduleOf(times), clockOf(times.timeZone).at(nowMs * 1000));
}

function scheduleOf({ timeZone, windows }: Pick<QuietHours, 'timeZone' | 'windows'>): Schedule {
  return {
    timeZone,
    windows: windows.map(({ days, from, to }) => ({
      days: days.map((day) => DAYS.indexOf(day) + 1),
      fromMinute: parseClock(from) ?? 0,
      toMinute: parseClock(to) ?? 0,
    })),
  };
}

const clocks = new Map<string, WallClock>();

function clockOf(timeZone: string): WallClock {
  const known = clocks.get(timeZone);
  if (known !== undefined) return known;
  const clock = new WallClock(timeZone);
  if (clocks.size < CLOCKS_MAX) clocks.set(timeZone, clock);
  return clock;
}

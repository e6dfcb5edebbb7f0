import { z } from 'zod';
import { strictObject } from '../rule-faults.ts';
import { SCHEDULE_WINDOWS_MAX } from './condition-bounds.ts';
import type { Condition, Schedule } from './condition.ts';
import { rawIssue } from './raw-issue.ts';
import { isTimeZone, parseClock } from './schedule.ts';

/** Days of a week as the API has them, Monday first. */
export const DAY_NAMES = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const;

const ALL_DAYS: readonly number[] = [1, 2, 3, 4, 5, 6, 7];

const clock = z.string().transform((given, context): number => {
  const minute = parseClock(given);
  if (minute !== null) return minute;
  context.addIssue('must be a time of the day, 00:00 to 24:00');
  return z.NEVER;
});
const timeZone = z
  .string()
  .max(64)
  .refine(isTimeZone, 'must be a time zone such as Europe/Berlin or UTC');
const weekMembers = {
  days: z
    .array(z.enum(DAY_NAMES))
    .min(1)
    .refine((days) => new Set(days).size === days.length, 'must not name one twice')
    .optional(),
  from: clock.default(0),
  to: clock.default(1440),
};
const HOURS_FAULT = {
  path: ['to'],
  message: 'must be another time than from; a whole day is 00:00 to 24:00',
};
const weekWindow = strictObject(weekMembers).refine(hasHours, HOURS_FAULT).transform(windowOf);
const oneWindow = strictObject({ timeZone, ...weekMembers })
  .refine(hasHours, HOURS_FAULT)
  .transform(({ timeZone: zone, ...week }): Schedule => ({
    timeZone: zone,
    windows: [windowOf(week)],
  }));
const manyWindows = strictObject({
  timeZone,
  windows: z.array(weekWindow).min(1).max(SCHEDULE_WINDOWS_MAX),
});
const schedule = z.looseObject({}).transform((given, context): Schedule => {
  const { data, error } = ('windows' in given ? manyWindows : oneWindow).safeParse(given);
  if (data !== undefined) return data;
  for (const issue of error.issues) context.issues.push(rawIssue(issue, [], given));
  return z.NEVER;
});

/** `{"schedule":{"timeZone":"Europe/Berlin","days":["mon"],"from":"22:00","to":"06:00"}}` */
export const scheduleSchema = strictObject({
  schedule,
  outside: z.boolean().default(false),
}).transform(({ outside, ...rest }): Condition => ({
  kind: 'schedule',
  ...rest,
  inside: !outside,
}));

interface Week {
  readonly days?: (typeof DAY_NAMES)[number][] | undefined;
  readonly from: number;
  readonly to: number;
}

function hasHours({ from, to }: Week): boolean {
  return from !== to && from < 1440 && to > 0;
}

function windowOf({ days, from, to }: Week): Schedule['windows'][number] {
  return {
    days:
      days === undefined
        ? ALL_DAYS
        : ALL_DAYS.filter((day) => days.includes(DAY_NAMES[day - 1] ?? 'mon')),
    fromMinute: from,
    toMinute: to,
  };
}

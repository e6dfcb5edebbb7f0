// HOT PATH: once for each evaluation
import type { EvaluationContext, Operand } from '../compiled-rule.ts';
import type { Condition, Schedule } from './condition.ts';
import type { Operator, RuleParts, TimedOperator } from './operator.ts';
import { FALSE, TRUE, UNKNOWN, type Truth } from './truth.ts';

const MINUTE_MICROS = 60_000_000;
/** Beyond it there are no dates, ECMA-262 21.4.1.1. */
const DATE_MICROS_MAX = 8.64e18;
const DAY_MINUTES = 1440;
/** Minutes whose answer is kept: two hours and a bit, for devices whose clocks are apart. A power of two. */
const MINUTES_KEPT = 128;
const DAYS = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'];

/** Holds inside, or outside, the times of a week. Looked at every minute. */
export function compileSchedule(
  condition: Extract<Condition, { kind: 'schedule' }>,
  parts: RuleParts,
): Operator {
  const operator = new ScheduleOperator(condition.schedule, condition.inside);
  parts.needTick(operator, MINUTE_MICROS);
  return operator;
}

/** Whether a time zone is known here: `Europe/Berlin`, `UTC`, `+02:00`. */
export function isTimeZone(name: string): boolean {
  try {
    return new Intl.DateTimeFormat('en-US', { timeZone: name }).resolvedOptions().timeZone !== '';
  } catch {
    return false;
  }
}

/** What the clock on the wall of a time zone shows: day 1 Monday to 7 Sunday, minute since midnight. */
export interface WallTime {
  readonly day: number;
  readonly minute: number;
}

/** Reads the clock on the wall of a time zone, with every change of it that the system's tables know. */
export class WallClock {
  readonly #format: Intl.DateTimeFormat;

  constructor(timeZone: string) {
    this.#format = new Intl.DateTimeFormat('en-US', {
      timeZone,
      weekday: 'short',
      hour: '2-digit',
      minute: '2-digit',
      hourCycle: 'h23',
    });
  }

  /** @param timeMicros within what a Date can say. */
  at(timeMicros: number): WallTime {
    let day = 0;
    let minute = 0;
    for (const { type, value } of this.#format.formatToParts(Math.floor(timeMicros / 1000))) {
      if (type === 'weekday') day = DAYS.indexOf(value) + 1;
      else if (type === 'hour') minute += Number(value) * 60;
      else if (type === 'minute') minute += Number(value);
    }
    return { day, minute };
  }
}

/** Whether a time on the wall is in a schedule. What begins in the evening belongs to the day it began on. */
export function isInside({ windows }: Schedule, { day, minute }: WallTime): boolean {
  const dayBefore = day === 1 ? 7 : day - 1;
  return windows.some(({ days, fromMinute, toMinute }) => {
    if (fromMinute < toMinute) {
      return days.includes(day) && minute >= fromMinute && minute < toMinute;
    }
    return (
      (days.includes(day) && minute >= fromMinute) ||
      (days.includes(dayBefore) && minute < toMinute)
    );
  });
}

class ScheduleOperator implements TimedOperator {
  readonly #schedule: Schedule;
  readonly #isInsideWanted: boolean;
  readonly #clock: WallClock;
  /** By the lower bits of a minute since 1970: which minute is kept there, and whether it is inside. */
  readonly #minutes = new Float64Array(MINUTES_KEPT).fill(NaN);
  readonly #inside = new Uint8Array(MINUTES_KEPT);

  constructor(schedule: Schedule, isInsideWanted: boolean) {
    this.#schedule = schedule;
    this.#isInsideWanted = isInsideWanted;
    this.#clock = new WallClock(schedule.timeZone);
  }

  truth(context: EvaluationContext): Truth {
    if (!(Math.abs(context.timeMicros) <= DATE_MICROS_MAX)) return UNKNOWN;
    const minute = Math.floor(context.timeMicros / MINUTE_MICROS);
    const slot = minute & (MINUTES_KEPT - 1);
    if (this.#minutes[slot] !== minute) {
      this.#inside[slot] = isInside(this.#schedule, this.#clock.at(context.timeMicros)) ? 1 : 0;
      this.#minutes[slot] = minute;
    }
    return (this.#inside[slot] === 1) === this.#isInsideWanted ? TRUE : FALSE;
  }

  changesAt({ timeMicros }: EvaluationContext): number {
    return (Math.floor(timeMicros / MINUTE_MICROS) + 1) * MINUTE_MICROS;
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    const { timeZone, windows } = this.#schedule;
    const holds = this.truth(context);
    if (holds === UNKNOWN) return;
    const { day, minute } = this.#clock.at(context.timeMicros);
    operands.push({
      name: `time in ${timeZone}`,
      value: `${DAYS[day - 1]} ${clockText(minute)}`,
      timeMicros: context.timeMicros,
      against: `${this.#isInsideWanted ? 'inside' : 'outside'} ${windows.map(windowText).join(', ')}`,
      holds: holds === TRUE,
    });
  }
}

/** `07:05` of 425; `24:00` is the end of a day. */
export function clockText(minute: number): string {
  const hours = Math.floor(minute / 60);
  return `${String(hours).padStart(2, '0')}:${String(minute % 60).padStart(2, '0')}`;
}

/** Minutes since midnight of `07:05`; null of anything else, and `24:00` is 1440. */
export function parseClock(text: string): number | null {
  const match = /^(\d{2}):(\d{2})$/.exec(text);
  if (match === null) return null;
  const minute = Number(match[1]) * 60 + Number(match[2]);
  return minute <= DAY_MINUTES && Number(match[2]) < 60 ? minute : null;
}

function windowText({ days, fromMinute, toMinute }: Schedule['windows'][number]): string {
  const span = `${clockText(fromMinute)}-${clockText(toMinute)}`;
  return days.length === 7 ? span : `${days.map((day) => DAYS[day - 1]).join(' ')} ${span}`;
}

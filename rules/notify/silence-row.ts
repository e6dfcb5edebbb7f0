import { microsOf } from '../../drizzle/timestamp-text.ts';
import type { Matcher } from './matchers.ts';
import { isWithin, type QuietHours } from './quiet-hours.ts';

/** Times of a week, as the API has them. */
export type WeekTimes = Pick<QuietHours, 'timeZone' | 'windows'>;

/** `pending`: it has not begun. `active`: it has, and has not ended. */
export const SILENCE_STATES = ['pending', 'active', 'expired'] as const;

/** One of {@link SILENCE_STATES}. */
export type SilenceState = (typeof SILENCE_STATES)[number];

/** A silence or a maintenance window. Times are in microseconds since 1970. */
export interface Silence {
  readonly silenceId: string;
  readonly kind: 'silence' | 'maintenance';
  readonly matchers: readonly Matcher[];
  /** Of a maintenance window: only at these times. Null: all the time. */
  readonly schedule: WeekTimes | null;
  readonly startsMicros: number;
  readonly endsMicros: number;
  readonly comment: string;
  readonly createdBy: string;
  readonly createdMicros: number;
}

/** Columns of a silence, named as {@link Silence} is. */
export const SILENCE_COLUMNS = `silence_id AS "silenceId", kind, matchers, schedule,
  ${microsOf('starts_at')} AS "startsMicros", ${microsOf('ends_at')} AS "endsMicros", comment,
  created_by AS "createdBy", ${microsOf('created_at')} AS "createdMicros"`;

/** Where a silence stands at a time. */
export function silenceStateOf(
  { startsMicros, endsMicros }: Pick<Silence, 'startsMicros' | 'endsMicros'>,
  nowMicros: number,
): SilenceState {
  if (nowMicros >= endsMicros) return 'expired';
  return nowMicros < startsMicros ? 'pending' : 'active';
}

/** Whether nobody is told of alerts that match, at a time: active, and within its schedule. */
export function isInForce(silence: Silence, nowMicros: number): boolean {
  if (silenceStateOf(silence, nowMicros) !== 'active') return false;
  const { schedule } = silence;
  return schedule === null || isWithin(schedule, nowMicros / 1000);
}

/** The longest duration that may be asked for anywhere: a leap year. Microseconds. */
export const DURATION_MICROS_MAX = 366 * 86_400_000_000;

/** What a duration looks like, for messages. */
export const DURATION_HINT = 'must be a duration, a text such as "2s", "5m" or "1h30m"';

/** From the largest to the smallest. */
const UNITS = [
  ['d', 86_400_000_000],
  ['h', 3_600_000_000],
  ['m', 60_000_000],
  ['s', 1_000_000],
  ['ms', 1000],
] as const;

const FORM = /^(?:(\d{1,12})d)?(?:(\d{1,12})h)?(?:(\d{1,12})m)?(?:(\d{1,12})s)?(?:(\d{1,12})ms)?$/;

/**
 * Microseconds of `250ms`, `2s`, `5m`, `1h`, `1d`, or of several in that order: `1h30m`. Exact.
 * @returns null for anything else, and for more than {@link DURATION_MICROS_MAX}.
 */
export function parseDuration(text: string): number | null {
  const match = FORM.exec(text);
  if (match === null || text === '') return null;
  let micros = 0;
  for (const [index, [, unitMicros]] of UNITS.entries()) {
    micros += Number(match[index + 1] ?? 0) * unitMicros;
  }
  return micros <= DURATION_MICROS_MAX ? micros : null;
}

/**
 * The shortest text that {@link parseDuration} reads as the same, in one unit where that is exact: `90s`.
 * @param micros a multiple of 1000, not negative; what lies below a millisecond is cut off.
 */
export function formatDuration(micros: number): string {
  if (micros < 1000) return '0s';
  for (const [unit, unitMicros] of UNITS) {
    if (micros % unitMicros === 0) return `${micros / unitMicros}${unit}`;
  }
  return `${Math.floor(micros / 1000)}ms`;
}

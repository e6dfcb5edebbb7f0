/** A time in UTC for people, to the millisecond: `2026-11-21 12:00:01.250Z`. */
export function timeWords(timeMicros: number): string {
  return new Date(timeMicros / 1000).toISOString().replace('T', ' ');
}

/** A value for people: numbers with six digits that count, texts in quotes. */
export function valueWords(value: number | string | boolean): string {
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'boolean' || Number.isInteger(value)) return String(value);
  return String(Number(value.toPrecision(6)));
}

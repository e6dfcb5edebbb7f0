/** `ts` below this is in seconds, else in milliseconds, as in a payload. */
const SECONDS_BELOW = 1e11;
const NUMBER = /^-?\d{1,16}(?:\.\d{1,9})?$/;
const ISO =
  /^(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?\s?([Zz]|[+-]\d{2}(?::?\d{2})?)$/;

/**
 * Reads the time of a row: ISO 8601 with `Z` or an offset, as PostgreSQL and spreadsheets write it too,
 * or seconds or milliseconds since 1970. A time without a zone could mean any of 38 moments and is none.
 * @returns milliseconds since 1970 with microseconds behind the point, or null.
 */
export function readTimeCell(text: string): number | null {
  if (NUMBER.test(text)) {
    const number = Number(text);
    return number < SECONDS_BELOW ? Math.round(number * 1e6) / 1000 : number;
  }
  const [, date, minutes, seconds = '00', fraction = '', zone = ''] = ISO.exec(text) ?? [];
  if (date === undefined) return null;
  const offset = zone.replace(/^([+-]\d{2})(?::?(\d{2}))?$/, (_all, hours: string, rest = '00') =>
    [hours, rest].join(':'),
  );
  const milliseconds = Date.parse(`${date}T${minutes}:${seconds}${offset.toUpperCase()}`);
  // Date.parse takes 31 February for a day in March.
  if (Number.isNaN(milliseconds) || !isCalendarDate(date)) return null;
  return milliseconds + Number(fraction.padEnd(6, '0').slice(0, 6)) / 1000;
}

function isCalendarDate(date: string): boolean {
  const midnight = new Date(`${date}T00:00:00Z`);
  return !Number.isNaN(midnight.getTime()) && midnight.toISOString().startsWith(date);
}

/** Beyond it a number no longer holds whole microseconds: 2255-06-05. */
const MICROS_MAX = Number.MAX_SAFE_INTEGER;

const TIME_OF_DAY = /[Tt ](\d{2}:\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?/;
const ZONE = /([Zz]|[+ -]\d{2}:?\d{2})/;
const ISO = new RegExp(`^(\\d{4}-\\d{2}-\\d{2})(?:${TIME_OF_DAY.source}${ZONE.source})?$`);
const MILLISECONDS = /^-?\d{1,15}$/;

/**
 * A time as the API writes it: ISO 8601 in UTC with three decimals, or six when the microseconds
 * need them. Text order is time order among times of the same length.
 */
export function formatMicros(timeMicros: number): string {
  const micros = ((timeMicros % 1000) + 1000) % 1000;
  const text = new Date((timeMicros - micros) / 1000).toISOString();
  return micros === 0 ? text : `${text.slice(0, -1)}${String(micros).padStart(3, '0')}Z`;
}

/**
 * Reads a time as the API takes it: ISO 8601 with `Z` or an offset, a date alone (midnight UTC), or
 * milliseconds since 1970. A `+` that a URL turned into a space is understood. What lies beyond the
 * year 2255 is taken as 2255.
 * @returns microseconds since 1970, or null when the text is no such time.
 */
export function parseMicros(text: string): number | null {
  if (MILLISECONDS.test(text)) return clamp(Number(text) * 1000);
  const [, date, minutes, seconds = '00', fraction = '', zone = 'Z'] = ISO.exec(text) ?? [];
  if (date === undefined) return null;
  const offset = zone.replace(' ', '+').replace(/^(.\d{2})(\d{2})$/, '$1:$2');
  const milliseconds = Date.parse(
    `${date}T${minutes ?? '00:00'}:${seconds}${offset.toUpperCase()}`,
  );
  // Date.parse takes 31 February for a day in March.
  if (Number.isNaN(milliseconds) || !isCalendarDate(date)) return null;
  return clamp(milliseconds * 1000 + Number(fraction.padEnd(6, '0').slice(0, 6)));
}

function isCalendarDate(date: string): boolean {
  const midnight = new Date(`${date}T00:00:00Z`);
  return !Number.isNaN(midnight.getTime()) && midnight.toISOString().startsWith(date);
}

function clamp(timeMicros: number): number {
  return Math.max(-MICROS_MAX, Math.min(MICROS_MAX, timeMicros));
}

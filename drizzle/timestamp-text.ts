/** SQL for a timestamptz as microseconds since 1970, exact until the year 2255. */
export function microsOf(column: string): string {
  // `extract` gives a numeric, and a float8 holds whole microseconds until then.
  return `(extract(epoch FROM ${column}) * 1000000)::float8`;
}

/** Microseconds since 1970 as PostgreSQL reads them without loss. */
export function timestampText(timeMicros: number): string {
  const fraction = ((timeMicros % 1_000_000) + 1_000_000) % 1_000_000;
  const seconds = new Date((timeMicros - fraction) / 1000).toISOString().slice(0, 19);
  return `${seconds}.${String(fraction).padStart(6, '0')}Z`;
}

import { readCopyRows } from './copy-buffer.ts';

/** An hour of a device that has got readings after its aggregates may have been made. */
export interface LateHour {
  readonly deviceId: number;
  /** Beginning of the hour, in microseconds since 1970. */
  readonly hourMicros: number;
}

const HOUR_MICROS = 3_600_000_000;

/** The hours, each once for each device, of those rows whose time is before `lateBefore`. */
export function lateHours(rows: Buffer, lateBefore: number): LateHour[] {
  const found = new Map<string, LateHour>();
  for (const { deviceId, timeMicros } of readCopyRows(rows)) {
    if (timeMicros >= lateBefore) continue;
    const hourMicros = Math.floor(timeMicros / HOUR_MICROS) * HOUR_MICROS;
    const key = `${deviceId}/${hourMicros}`;
    if (!found.has(key)) found.set(key, { deviceId, hourMicros });
  }
  return [...found.values()];
}

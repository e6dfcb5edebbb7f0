import { CLOCK_SET_MICROS, Refusal } from '../../firmware-protocol/contract.ts';
import { decodeData } from '../../firmware-protocol/telemetry.ts';
import type { KeptApartCode } from '../message.ts';
import type { Line } from './line-splitter.ts';

/** The files that can be imported. */
export type ImportFormat = 'csv' | 'ndjson';

/**
 * Why a line was not stored: a code of the wire contract, or one of files. `bad_line`: not a record of
 * this format. `bad_device`: names no device. `bad_time`: not a time. `no_time`: a reading without one,
 * which could not be told from its copy. `bad_value`: a number beyond what can be held. `unknown_device`:
 * the organization has none of this name.
 */
export type ImportCode =
  | KeptApartCode
  | 'bad_line'
  | 'bad_device'
  | 'bad_time'
  | 'no_time'
  | 'bad_value'
  | 'unknown_device';

/** A line that was not stored, and why. `detail` is one line for a person. */
export class LineRefusal {
  readonly code: ImportCode;
  readonly detail: string;
  constructor(code: ImportCode, detail: string) {
    this.code = code;
    this.detail = detail.slice(0, 200);
  }
}

/** A line that is fit to be fed to ingest: as if the device had published `payload` on `data`. */
export interface ImportMessage {
  readonly device: string;
  readonly payload: Buffer;
}

/** A line with what was made of it; null for one that has nothing to store. */
export interface ReadLine {
  readonly line: Line;
  readonly outcome: ImportMessage | LineRefusal | null;
}

/** Reads the lines of one format. Never throws because of what a line holds. */
export interface LineReader {
  read(lines: readonly Line[]): ReadLine[];
}

/** Between which times a reading may lie. */
export interface ImportTimes {
  /** Microseconds since 1970. */
  readonly fromMicros: number;
  readonly toMicros: number;
}

/** The times that may be imported now. */
export function importTimes(nowMs: number, ageMaxMs: number, aheadMaxMs: number): ImportTimes {
  return {
    fromMicros: Math.max(CLOCK_SET_MICROS, (nowMs - ageMaxMs) * 1000),
    toMicros: (nowMs + aheadMaxMs) * 1000,
  };
}

/** Refuses a line whose bytes were cut. */
export function refuseLong({ isTooLong }: Line, bytesMax: number): LineRefusal | null {
  return isTooLong ? new LineRefusal('too_big', `the line is longer than ${bytesMax} bytes`) : null;
}

/**
 * Reads a payload as ingest will, so that what it refuses is a refused line and not a message in
 * quarantine. Every sample needs a `ts` of its own within `times`: otherwise it would be stored under the
 * time of the import, and once more with each repetition.
 * @returns null when all of it can be stored.
 */
export function findFault(payload: Buffer, times: ImportTimes): LineRefusal | null {
  const decoded = decodeData(payload);
  if (decoded instanceof Refusal) return new LineRefusal(decoded.code, decoded.detail);
  for (const { tsMicros } of decoded.samples) {
    if (tsMicros === null) return new LineRefusal('no_time', 'a reading without "ts"');
    if (tsMicros < times.fromMicros) {
      return new LineRefusal('too_old', `${shownTime(tsMicros)} is older than may be imported`);
    }
    if (tsMicros > times.toMicros) {
      return new LineRefusal('clock', `${shownTime(tsMicros)} lies in the future`);
    }
  }
  return null;
}

function shownTime(micros: number): string {
  const time = new Date(micros / 1000);
  return Number.isNaN(time.getTime()) ? `${micros / 1e6} s` : time.toISOString();
}

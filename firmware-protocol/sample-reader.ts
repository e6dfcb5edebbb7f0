// HOT PATH: once per message, its methods once per value; 20 ns/value
import { Buffer } from 'node:buffer';
import {
  MESSAGE_POINTS_MAX,
  MESSAGE_SAMPLES_MAX,
  NESTING_MAX,
  Refusal,
  SAMPLE_METRICS_MAX,
  TEXT_BYTES_MAX,
  UP_MS_MAX,
  VALUE_MAX,
} from './contract.ts';
import { isMissingWord } from './json-text.ts';
import { isNameText, isReserved, shown } from './metric-name.ts';
import type { Point, Sample } from './telemetry.ts';

type Members = Readonly<Record<string, unknown>>;

/** The arrays of a series beside their flat names. */
interface Columns {
  names: string[];
  arrays: unknown[][];
}

/** `ts` below this is in seconds, else in milliseconds: 1e11 s is the year 5138, 1e11 ms is 1973. */
const SECONDS_BELOW = 1e11;
/** Not an answer: the item holds an array and must be read as a series. */
const IS_SERIES = new Refusal('bad_series', 'a series');

/**
 * Turns the parsed JSON of one message into samples; made for one message and then dropped. Each method
 * returns null, or the {@link Refusal} of the whole message: what was read until then is void.
 * `payload-schema.ts` says the same in zod; change both.
 */
export class SampleReader {
  /** In the order of the message; `fromLast` is still 0. */
  samples: Sample[] = [];
  pointCount = 0;
  missing = 0;

  #points: Point[] = [];
  #hasGroups = false;
  #ts: number | null = null;
  #age: number | null = null;
  #up: number | null = null;
  #seq: number | null = null;
  #dt: number | null = null;
  #values: Members | null = null;

  /** Reads a message that is an array of samples or series. */
  readArray(items: readonly unknown[]): Refusal | null {
    if (items.length > MESSAGE_SAMPLES_MAX) return tooMany('samples', MESSAGE_SAMPLES_MAX);
    for (let index = 0; index < items.length; index += 1) {
      const item = items[index];
      if (!isGroup(item)) return new Refusal('bad_type', `sample ${index} is not an object`);
      const fault = this.readItem(item);
      if (fault !== null) return fault;
    }
    return null;
  }

  /** Reads one sample or one series. */
  readItem(item: object): Refusal | null {
    const members = item as Members;
    const missingBefore = this.missing;
    this.#reset();
    for (const key in members) {
      const value = members[key];
      const fault = isReserved(key) ? this.#readStamp(key, value) : this.#readMember(key, value, 1);
      if (fault === IS_SERIES) return this.#readSeries(members, missingBefore);
      if (fault !== null) return fault;
    }
    if (this.#dt !== null) return this.#readSeries(members, missingBefore);
    if (this.#values !== null) {
      if (this.#points.length > 0 || this.missing > missingBefore || this.#hasGroups) {
        return notAlone();
      }
      const fault = this.#readGroup(this.#values, '', 1);
      if (fault === IS_SERIES) return noStep();
      if (fault !== null) return fault;
    }
    return this.#endSample(this.#values ?? members, missingBefore);
  }

  #reset(): void {
    this.#points = [];
    this.#hasGroups = false;
    this.#ts = null;
    this.#age = null;
    this.#up = null;
    this.#seq = null;
    this.#dt = null;
    this.#values = null;
  }

  #readStamp(key: string, value: unknown): Refusal | null {
    if (key === 'values') {
      if (!isGroup(value)) return new Refusal('bad_type', 'values is not an object');
      this.#values = value;
      return null;
    }
    if (typeof value !== 'number' || !Number.isFinite(value)) return badStamp(key);
    switch (key) {
      case 'ts':
        this.#ts = toMicros(value);
        return null;
      case 'age':
        this.#age = value;
        return value < 0 ? badStamp(key) : null;
      case 'up':
        this.#up = value;
        return value < 0 || value > UP_MS_MAX ? badStamp(key) : null;
      case 'dt':
        this.#dt = value;
        return value > 0 ? null : badStamp(key);
      default:
        this.#seq = value;
        return Number.isSafeInteger(value) && value >= 0 ? null : badStamp(key);
    }
  }

  #readGroup(group: Members, prefix: string, depth: number): Refusal | null {
    for (const key in group) {
      if (key === '__proto__') return badName(prefix + key);
      const fault = this.#readMember(prefix + key, group[key], depth);
      if (fault !== null) return fault;
    }
    return null;
  }

  #readMember(name: string, value: unknown, depth: number): Refusal | null {
    if (!isNameText(name)) return badName(name);
    if (typeof value === 'object' && value !== null) {
      if (Array.isArray(value)) return IS_SERIES;
      if (depth >= NESTING_MAX) return tooDeep(name);
      this.#hasGroups = true;
      return this.#readGroup(value as Members, `${name}.`, depth + 1);
    }
    if (isReserved(name)) return badName(name);
    return this.#addPoint(this.#points, name, value);
  }

  #addPoint(points: Point[], metric: string, value: unknown): Refusal | null {
    if (typeof value === 'number') {
      if (isStorable(value)) points.push({ metric, kind: 'number', value, text: null });
      else this.missing += 1;
    } else if (typeof value === 'boolean') {
      points.push({ metric, kind: 'bool', value: value ? 1 : 0, text: null });
    } else if (typeof value === 'string') {
      if (isMissingWord(value)) {
        this.missing += 1;
        return null;
      }
      const fault = textFaultOf(metric, value);
      if (fault !== null) return fault;
      points.push({ metric, kind: 'text', value: null, text: value });
    } else if (value === null) this.missing += 1;
    else return new Refusal('bad_type', `${shown(metric)} is not a number, bool, string or null`);
    return null;
  }

  #endSample(members: Members, missingBefore: number): Refusal | null {
    const points = this.#points;
    if (points.length + this.missing - missingBefore > SAMPLE_METRICS_MAX) {
      return tooMany('metrics', SAMPLE_METRICS_MAX);
    }
    if (this.#hasGroups) {
      const fault = findRepeatedName(members, '', new Set());
      if (fault !== null) return fault;
    }
    return this.#addSample({
      tsMicros: this.#ts,
      ageMs: this.#age,
      upMs: this.#up,
      seq: this.#seq,
      isContinued: false,
      fromLast: 0,
      points,
    });
  }

  #addSample(sample: Sample): Refusal | null {
    // A pushed-to array holds 17 slots from the start, and most messages are one sample.
    if (this.samples.length === 0) this.samples = [sample];
    else this.samples.push(sample);
    this.pointCount += sample.points.length;
    if (this.samples.length > MESSAGE_SAMPLES_MAX) return tooMany('samples', MESSAGE_SAMPLES_MAX);
    return this.pointCount + this.missing > MESSAGE_POINTS_MAX
      ? tooMany('values', MESSAGE_POINTS_MAX)
      : null;
  }

  #readSeries(members: Members, missingBefore: number): Refusal | null {
    this.missing = missingBefore;
    this.#reset();
    const columns: Columns = { names: [], arrays: [] };
    let fault: Refusal | null = null;
    for (const key in members) {
      fault = isReserved(key)
        ? this.#readStamp(key, members[key])
        : this.#readColumn(key, members[key], 1, columns);
      if (fault !== null) return fault;
    }
    if (this.#dt === null) return noStep();
    if (this.#values !== null) {
      if (columns.names.length > 0 || this.missing > missingBefore || this.#hasGroups)
        return notAlone();
      fault = this.#readColumnGroup(this.#values, '', 1, columns);
      if (fault !== null) return fault;
    }
    if (columns.names.length + this.missing - missingBefore > SAMPLE_METRICS_MAX) {
      return tooMany('metrics', SAMPLE_METRICS_MAX);
    }
    if (this.#hasGroups) fault = findRepeatedName(this.#values ?? members, '', new Set());
    return fault ?? this.#transpose(columns, this.#dt);
  }

  #readColumnGroup(
    group: Members,
    prefix: string,
    depth: number,
    columns: Columns,
  ): Refusal | null {
    for (const key in group) {
      if (key === '__proto__') return badName(prefix + key);
      const fault = this.#readColumn(prefix + key, group[key], depth, columns);
      if (fault !== null) return fault;
    }
    return null;
  }

  #readColumn(name: string, value: unknown, depth: number, columns: Columns): Refusal | null {
    if (!isNameText(name)) return badName(name);
    if (isGroup(value)) {
      if (depth >= NESTING_MAX) return tooDeep(name);
      this.#hasGroups = true;
      return this.#readColumnGroup(value, `${name}.`, depth + 1, columns);
    }
    if (isReserved(name)) return badName(name);
    if (Array.isArray(value)) {
      columns.names.push(name);
      columns.arrays.push(value);
    } else if (value === null) this.missing += 1;
    else return new Refusal('bad_series', `${shown(name)} is not an array`);
    return null;
  }

  #transpose({ names, arrays }: Columns, dt: number): Refusal | null {
    const length = arrays[0]?.length ?? 0;
    for (let index = 1; index < arrays.length; index += 1) {
      if (arrays[index]?.length !== length) {
        return new Refusal('bad_series', `${shown(names[index] ?? '')} has another length`);
      }
    }
    if (length > MESSAGE_SAMPLES_MAX) return tooMany('samples', MESSAGE_SAMPLES_MAX);
    // Nothing to store, but its number has come.
    if (length === 0 && this.#seq !== null) return this.#addRow(0, 1, dt, []);
    for (let row = 0; row < length; row += 1) {
      const points: Point[] = [];
      for (let index = 0; index < arrays.length; index += 1) {
        const fault = this.#addPoint(points, names[index] ?? '', arrays[index]?.[row]);
        if (fault !== null) return fault;
      }
      const fault = this.#addRow(row, length, dt, points);
      if (fault !== null) return fault;
    }
    return this.pointCount + this.missing > MESSAGE_POINTS_MAX
      ? tooMany('values', MESSAGE_POINTS_MAX)
      : null;
  }

  /** Without a time of its own the last sample of a series was taken when it was received. */
  #addRow(row: number, length: number, dt: number, points: Point[]): Refusal | null {
    const behindMs = row * dt;
    const isTimeless = this.#ts === null && this.#age === null && this.#up === null;
    const ageMs = isTimeless ? (length - 1) * dt : this.#age;
    return this.#addSample({
      tsMicros: this.#ts === null ? null : toSafeInteger(this.#ts + behindMs * 1000),
      ageMs: ageMs === null ? null : ageMs - behindMs,
      upMs: this.#up === null ? null : Math.min(this.#up + behindMs, UP_MS_MAX),
      seq: this.#seq,
      isContinued: row > 0,
      fromLast: 0,
      points,
    });
  }
}

/** Whether a number is stored: finite, and at most {@link VALUE_MAX} either side of zero. */
export function isStorable(value: number): boolean {
  return value <= VALUE_MAX && value >= -VALUE_MAX;
}

/**
 * Says why PostgreSQL or a limit cannot take a text value: over 256 bytes of UTF-8, U+0000, half of a
 * surrogate pair.
 */
export function textFaultOf(metric: string, text: string): Refusal | null {
  const length = text.length;
  const isLong =
    length > TEXT_BYTES_MAX ||
    (length * 3 > TEXT_BYTES_MAX && Buffer.byteLength(text) > TEXT_BYTES_MAX);
  if (isLong) {
    return new Refusal('too_big', `${shown(metric)}: text over ${TEXT_BYTES_MAX} bytes`);
  }
  for (let at = 0; at < length; at += 1) {
    const char = text.charCodeAt(at);
    if (char === 0) return new Refusal('bad_type', `${shown(metric)}: text with U+0000`);
    if (char < 0xd800 || char > 0xdfff) continue;
    const low = char < 0xdc00 ? text.charCodeAt(at + 1) : 0;
    if (low < 0xdc00 || low > 0xdfff || Number.isNaN(low)) {
      return new Refusal('bad_type', `${shown(metric)}: text with half of a surrogate pair`);
    }
    at += 1;
  }
  return null;
}

function isGroup(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function toMicros(ts: number): number {
  return toSafeInteger(ts < SECONDS_BELOW ? ts * 1e6 : ts * 1000);
}

/** Rounds; what is beyond the integers of a double becomes the last of them, far outside any time limit. */
function toSafeInteger(micros: number): number {
  const max = Number.MAX_SAFE_INTEGER;
  // + 0 makes -0 a plain zero.
  return Math.round(micros > max ? max : micros < -max ? -max : micros) + 0;
}

/** `{"a.b":1,"a":{"b":2}}` spells one name twice; which value to store cannot be told. */
function findRepeatedName(members: Members, prefix: string, seen: Set<string>): Refusal | null {
  for (const key in members) {
    const value = members[key];
    const name = prefix + key;
    if (isGroup(value)) {
      const fault = findRepeatedName(value, `${name}.`, seen);
      if (fault !== null) return fault;
    } else if (seen.has(name)) return new Refusal('bad_name', `${shown(name)} stands twice`);
    else seen.add(name);
  }
  return null;
}

function badName(name: string): Refusal {
  return new Refusal('bad_name', `${shown(name)} is not a metric name`);
}
function badStamp(key: string): Refusal {
  return new Refusal('bad_type', `${key} is not a number in its range`);
}
function tooDeep(name: string): Refusal {
  return new Refusal('too_deep', `${shown(name)}: objects nest ${NESTING_MAX} levels at most`);
}
function tooMany(what: string, max: number): Refusal {
  return new Refusal('too_many', `more than ${max} ${what}`);
}
function noStep(): Refusal {
  return new Refusal('bad_series', 'arrays of values need dt, the milliseconds between samples');
}
function notAlone(): Refusal {
  return new Refusal('bad_type', 'values and metrics beside it');
}

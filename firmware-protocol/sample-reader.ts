// HOT PATH: once per telemetry message, its methods once per value
import { Buffer } from 'node:buffer';
import {
  MESSAGE_POINTS_MAX,
  MESSAGE_SAMPLES_MAX,
  NESTING_MAX,
  Refusal,
  SAMPLE_METRICS_MAX,
  TEXT_BYTES_MAX,
} from './contract.ts';
import { isMissingWord } from './json-text.ts';
import type { Point, Sample } from './telemetry.ts';

type Members = Readonly<Record<string, unknown>>;

/** `ts` below this is in seconds, else in milliseconds: 1e11 s is the year 5138, 1e11 ms is 1973. */
const SECONDS_BELOW = 1e11;
const METRIC_CHARS_MAX = 64;
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
      if (Number.isFinite(value)) points.push({ metric, kind: 'number', value, text: null });
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
    return this.#addSample(this.#ts, this.#age, points);
  }

  #addSample(tsMicros: number | null, ageMs: number | null, points: Point[]): Refusal | null {
    const sample: Sample = { tsMicros, ageMs, seq: this.#seq, fromLast: 0, points };
    // A pushed-to array holds 17 slots from the start, and most messages are one sample.
    if (this.samples.length === 0) this.samples = [sample];
    else this.samples.push(sample);
    this.pointCount += points.length;
    if (this.samples.length > MESSAGE_SAMPLES_MAX) return tooMany('samples', MESSAGE_SAMPLES_MAX);
    return this.pointCount + this.missing > MESSAGE_POINTS_MAX
      ? tooMany('values', MESSAGE_POINTS_MAX)
      : null;
  }

  #readSeries(members: Members, missingBefore: number): Refusal | null {
    this.missing = missingBefore;
    this.#reset();
    const names: string[] = [];
    const columns: unknown[][] = [];
    let fault: Refusal | null = null;
    for (const key in members) {
      fault = isReserved(key)
        ? this.#readStamp(key, members[key])
        : this.#readColumn(key, members[key], 1, names, columns);
      if (fault !== null) return fault;
    }
    if (this.#dt === null) return noStep();
    if (this.#values !== null) {
      if (names.length > 0 || this.missing > missingBefore || this.#hasGroups) return notAlone();
      fault = this.#readColumnGroup(this.#values, '', 1, names, columns);
      if (fault !== null) return fault;
    }
    if (names.length + this.missing - missingBefore > SAMPLE_METRICS_MAX) {
      return tooMany('metrics', SAMPLE_METRICS_MAX);
    }
    if (this.#hasGroups) fault = findRepeatedName(this.#values ?? members, '', new Set());
    return fault ?? this.#transpose(names, columns, this.#dt);
  }

  #readColumnGroup(
    group: Members,
    prefix: string,
    depth: number,
    names: string[],
    columns: unknown[][],
  ): Refusal | null {
    for (const key in group) {
      const fault = this.#readColumn(prefix + key, group[key], depth, names, columns);
      if (fault !== null) return fault;
    }
    return null;
  }

  #readColumn(
    name: string,
    value: unknown,
    depth: number,
    names: string[],
    columns: unknown[][],
  ): Refusal | null {
    if (!isNameText(name)) return badName(name);
    if (isGroup(value)) {
      if (depth >= NESTING_MAX) return tooDeep(name);
      this.#hasGroups = true;
      return this.#readColumnGroup(value, `${name}.`, depth + 1, names, columns);
    }
    if (isReserved(name)) return badName(name);
    if (Array.isArray(value)) {
      names.push(name);
      columns.push(value);
    } else if (value === null) this.missing += 1;
    else return new Refusal('bad_series', `${shown(name)} is not an array`);
    return null;
  }

  #transpose(names: readonly string[], columns: readonly unknown[][], dt: number): Refusal | null {
    const length = columns[0]?.length ?? 0;
    for (let index = 1; index < columns.length; index += 1) {
      if (columns[index]?.length !== length) {
        return new Refusal('bad_series', `${shown(names[index] ?? '')} has another length`);
      }
    }
    if (length > MESSAGE_SAMPLES_MAX) return tooMany('samples', MESSAGE_SAMPLES_MAX);
    for (let row = 0; row < length; row += 1) {
      const points: Point[] = [];
      for (let index = 0; index < columns.length; index += 1) {
        const fault = this.#addPoint(points, names[index] ?? '', columns[index]?.[row]);
        if (fault !== null) return fault;
      }
      const fault = this.#addRow(row, length, dt, points);
      if (fault !== null) return fault;
    }
    return this.pointCount + this.missing > MESSAGE_POINTS_MAX
      ? tooMany('values', MESSAGE_POINTS_MAX)
      : null;
  }

  /** Without `ts` and `age` the last sample of a series was taken when it was received. */
  #addRow(row: number, length: number, dt: number, points: Point[]): Refusal | null {
    if (this.#ts !== null) {
      const tsMicros = toSafeInteger(this.#ts + row * dt * 1000);
      return this.#addSample(tsMicros, this.#age, points);
    }
    const ageMs = this.#age === null ? (length - 1 - row) * dt : this.#age - row * dt;
    return this.#addSample(null, ageMs, points);
  }
}

/** Whether a text is a metric's name after flattening: METRIC_NAME and not a reserved member. */
export function isMetricName(name: string): boolean {
  return isNameText(name) && !isReserved(name);
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

/** METRIC_NAME without a regular expression: a third of its time. */
function isNameText(name: string): boolean {
  const length = name.length;
  if (length === 0 || length > METRIC_CHARS_MAX) return false;
  const first = name.charCodeAt(0) | 0x20;
  if (first < 0x61 || first > 0x7a) return false;
  for (let at = 1; at < length; at += 1) {
    const char = name.charCodeAt(at);
    const lower = char | 0x20;
    if (lower >= 0x61 && lower <= 0x7a) continue;
    if (char >= 0x30 && char <= 0x39) continue;
    if (char !== 0x5f && char !== 0x2e && char !== 0x2d) return false;
  }
  return true;
}

/** One of RESERVED_MEMBERS. The length decides for most names. */
function isReserved(key: string): boolean {
  switch (key.length) {
    case 2:
      return key === 'ts' || key === 'dt';
    case 3:
      return key === 'age' || key === 'seq';
    case 6:
      return key === 'values';
    default:
      return false;
  }
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

function shown(name: string): string {
  return name.slice(0, 40).replace(/[^\x21-\x7e]/g, '?');
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

import {
  dataPayloadSchema,
  flatMembers,
  scalarPayloadSchema,
} from '../../firmware-protocol/payload-schema.ts';
import { PACKET_BYTES_MAX, UP_MS_MAX, VALUE_MAX } from '../../firmware-protocol/contract.ts';
import type { Decoded, Point, Sample } from '../../firmware-protocol/telemetry.ts';
import { referenceCbor } from './reference-cbor.ts';

const MISSING = /^-?(?:nan|inf|infinity)$/i;

/** What `decodeData` must give, read off the zod schemas as plainly as can be. Null: refused. */
export function referenceData(payload: Uint8Array): Decoded | null {
  if (payload.length > PACKET_BYTES_MAX) return null;
  const parsed = parseOf(payload);
  if (parsed === null || !dataPayloadSchema.safeParse(parsed.json).success) return null;
  const items = Array.isArray(parsed.json) ? (parsed.json as unknown[]) : [parsed.json];
  const read = items.map((item) => readItem(item as Record<string, unknown>));
  const samples = read.flatMap((item) => item.samples);
  for (const [index, sample] of samples.entries()) sample.fromLast = samples.length - 1 - index;
  return {
    samples,
    pointCount: samples.reduce((sum, sample) => sum + sample.points.length, 0),
    missing: read.reduce((sum, item) => sum + item.missing, 0),
  };
}

/** What `decodeScalar` must give for a good metric name and at most 2048 bytes. Null: refused. */
export function referenceScalar(metric: string, payload: Uint8Array): Decoded | null {
  const text = decode(payload);
  if (text === null) return null;
  const parsed = MISSING.test(text.trim()) || text === '' ? { json: null } : parseStrictly(text);
  const value = parsed === null ? text : parsed.json;
  if (typeof value === 'string' && value.startsWith('\uFEFF')) return null;
  const isMissing = typeof value === 'string' && MISSING.test(value.trim());
  if (!scalarPayloadSchema.safeParse(value).success) return null;
  const points = isMissing ? [] : pointsOf(metric, value);
  return {
    samples: [
      {
        tsMicros: null,
        ageMs: null,
        upMs: null,
        seq: null,
        isContinued: false,
        fromLast: 0,
        points,
      },
    ],
    pointCount: points.length,
    missing: 1 - points.length,
  };
}

function parseOf(payload: Uint8Array): { json: unknown } | null {
  const first = payload[0] ?? 0;
  return first >= 0x80 && first < 0xe0 ? referenceCbor(payload, null) : parseJson(payload);
}

function readItem(item: Record<string, unknown>): { samples: Sample[]; missing: number } {
  const { ts, age, up, seq, dt, values, ...rest } = item;
  const members = flatMembers((values as object | undefined) ?? rest);
  let rows = dt === undefined ? [members] : rowsOf(members);
  if (rows.length === 0 && seq !== undefined) rows = [[]];
  const samples = rows.map((row, index) => ({
    ...timeOf({ ts, age, up, dt }, index, rows.length),
    seq: (seq as number | undefined) ?? null,
    isContinued: index > 0,
    fromLast: 0,
    points: row.flatMap(([name, value]) => pointsOf(name, value)),
  }));
  const asked =
    rows.reduce((sum, row) => sum + row.length, 0) +
    (dt === undefined ? 0 : members.filter(([, column]) => column === null).length);
  const stored = samples.reduce((sum, sample) => sum + sample.points.length, 0);
  return { samples, missing: asked - stored };
}

function rowsOf(members: [string, unknown][]): [string, unknown][][] {
  const columns = members.filter(([, column]) => column !== null) as [string, unknown[]][];
  const first = columns[0]?.[1] ?? [];
  return first.map((_, row) => columns.map(([name, column]) => [name, column[row]]));
}

function timeOf(stamp: Record<'ts' | 'age' | 'up' | 'dt', unknown>, row: number, rows: number) {
  const { ts, age, up, dt } = stamp;
  const offsetMs = typeof dt === 'number' ? row * dt : 0;
  const isTimeless = ts === undefined && age === undefined && up === undefined;
  const timelessMs = typeof dt === 'number' && isTimeless ? (rows - 1) * dt - offsetMs : null;
  const ageMs = typeof age === 'number' ? age - offsetMs : timelessMs;
  const upMs = typeof up === 'number' ? Math.min(up + offsetMs, UP_MS_MAX) : null;
  if (typeof ts !== 'number') return { tsMicros: null, ageMs, upMs };
  const start = clamp(ts < 1e11 ? ts * 1e6 : ts * 1e3);
  const tsMicros = typeof dt === 'number' ? clamp(start + offsetMs * 1000) : start;
  return { tsMicros, ageMs, upMs };
}

function clamp(micros: number): number {
  const max = Number.MAX_SAFE_INTEGER;
  return Math.round(Math.max(-max, Math.min(max, micros))) + 0;
}

function pointsOf(metric: string, value: unknown): Point[] {
  if (typeof value === 'number') {
    return Math.abs(value) > VALUE_MAX ? [] : [{ metric, kind: 'number', value, text: null }];
  }
  if (typeof value === 'boolean')
    return [{ metric, kind: 'bool', value: Number(value), text: null }];
  if (typeof value !== 'string' || MISSING.test(value)) return [];
  return [{ metric, kind: 'text', value: null, text: value }];
}

/** A payload as JSON, with bare missing words as null. Null: it is none. */
export function parseJson(payload: Uint8Array): { json: unknown } | null {
  const text = decode(payload);
  if (text === null) return null;
  const repaired = text.replace(/"(?:[^"\\]|\\[^])*"|-?[A-Za-z]+/g, (token) =>
    MISSING.test(token) ? 'null' : token,
  );
  const parsed = parseStrictly(text) ?? parseStrictly(repaired);
  return parsed === null || hasProto(parsed.json) ? null : parsed;
}

function parseStrictly(text: string): { json: unknown } | null {
  try {
    return { json: JSON.parse(text, onlyFinite) };
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

/** JSON has no word for what exceeds a double. */
function onlyFinite(_key: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isFinite(value) ? null : value;
}

/** zod drops a member called `__proto__`; here it is a name, and a bad one. */
function hasProto(json: unknown): boolean {
  if (typeof json !== 'object' || json === null) return false;
  return Object.hasOwn(json, '__proto__') || Object.values(json).some(hasProto);
}

function decode(payload: Uint8Array): string | null {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(payload);
  } catch (error) {
    if (error instanceof TypeError) return null;
    throw error;
  }
}

import { z } from 'zod';
import { VALUE_MAX } from '../../firmware-protocol/contract.ts';
import { isMetricName } from '../../firmware-protocol/metric-name.ts';
import { textSchema } from '../../firmware-protocol/payload-schema.ts';
import type { Decoded, Point, Sample } from '../../firmware-protocol/telemetry.ts';
import { referenceCbor } from './reference-cbor.ts';
import { parseJson } from './reference-decoder.ts';

const MISSING = /^-?(?:nan|inf|infinity)$/i;
const NAMES = ['n', 'u', 'v', 'vs', 'vb', 's', 't', 'ut', 'vd'];
const BASES = ['bver', 'bn', 'bt', 'bu', 'bv', 'bs'];
const LABELS = new Map([
  ...NAMES.map((name, index) => [index, name] as const),
  ...BASES.map((name, index) => [-1 - index, name] as const),
]);

const unit = z.string();
const record = z
  .looseObject({
    bver: z.int().min(1).max(10).optional(),
    bn: z.string().optional(),
    bt: z.number().optional(),
    bu: unit.optional(),
    bv: z.number().optional(),
    bs: z.number().optional(),
    n: z.string().optional(),
    u: unit.optional(),
    v: z.number().nullable().optional(),
    vs: textSchema.optional(),
    vb: z.boolean().optional(),
    s: z.number().optional(),
    t: z.number().optional(),
    ut: z.number().optional(),
    vd: z.never().optional(),
  })
  .refine((members) => !Object.keys(members).some((key) => key.endsWith('_')));
const packSchema = z.array(record).min(1).max(2000);
type Resolved = z.output<typeof record>;

/** A record with all that its base fields give it. */
interface Row {
  metric: string;
  timeS: number;
  unit: string | null;
  value: unknown;
}

/** What `decodeSenml` must give, in the words of RFC 8428. Null: refused. */
export function referenceSenml(payload: Uint8Array): Decoded | null {
  if (payload.length > 65_536) return null;
  const first = payload[0] ?? 0;
  const parsed =
    first >= 0x80 && first < 0xe0 ? referenceCbor(payload, LABELS) : parseJson(payload);
  const pack = packSchema.safeParse(parsed?.json);
  if (!pack.success) return null;
  const rows = pack.data.map((_, index) => resolve(pack.data.slice(0, index + 1)));
  if (rows.includes(null)) return null;
  return group(rows.flatMap((row) => row ?? []));
}

/** The values of the last of some records. Null: refused. */
function resolve(records: Resolved[]): Row[] | null {
  const own = records.at(-1) ?? {};
  const base = <Key extends keyof Resolved>(key: Key): Resolved[Key] | undefined =>
    records.findLast((one) => one[key] !== undefined)?.[key];
  const values = [own.v, own.vs, own.vb].filter((value) => value !== undefined);
  const sum = own.s === undefined && base('bs') === undefined ? undefined : (own.s ?? 0);
  if (values.length > 1) return null;
  if (values.length === 0 && sum === undefined) {
    return own.n === undefined && own.u === undefined && own.t === undefined ? [] : null;
  }
  const metric = nameOf((base('bn') as string | undefined) ?? '', own.n ?? '');
  const timeS = ((base('bt') as number | undefined) ?? 0) + (own.t ?? 0);
  if (!isMetricName(metric)) return null;
  const rows: Row[] = [];
  if (values.length === 1) {
    const named = own.u ?? (base('bu') as string | undefined) ?? '';
    if (named !== '' && !/^[!-~]{1,15}$/.test(named)) return null;
    const bv = (base('bv') as number | undefined) ?? 0;
    const value = typeof values[0] === 'number' ? values[0] + bv : values[0];
    rows.push({ metric, timeS, unit: named === '' ? null : named, value });
  }
  if (sum !== undefined) {
    const bs = (base('bs') as number | undefined) ?? 0;
    if (!isMetricName(`${metric}.sum`)) return null;
    rows.push({ metric: `${metric}.sum`, timeS, unit: null, value: sum + bs });
  }
  return rows;
}

/** The device, in the base name and before the last colon, is known already. */
function nameOf(base: string, name: string): string {
  const full = base.replace(/^.*[:/]/s, '') + name;
  return full.replace(/^.*:/s, '').replaceAll('/', '.');
}

function group(rows: Row[]): Decoded | null {
  const times = [...new Set(rows.map(({ timeS }) => timeS + 0))];
  const samples = times.map((timeS, index): Sample | null => {
    const asked = rows.filter((row) => row.timeS === timeS);
    const points = asked.flatMap(({ metric, value }) => pointOf(metric, value));
    const isUnique = new Set(points.map(({ metric }) => metric)).size === points.length;
    if (!isUnique || asked.length > 64) return null;
    return {
      ...timeOf(timeS),
      seq: null,
      isContinued: false,
      fromLast: times.length - 1 - index,
      points,
    };
  });
  if (samples.includes(null) || times.length > 500 || rows.length > 2000) return null;
  const found = samples.filter((sample) => sample !== null);
  const pointCount = found.reduce((total, { points }) => total + points.length, 0);
  const units = new Map(rows.flatMap((row) => (row.unit === null ? [] : [[row.metric, row.unit]])));
  const decoded = { samples: found, pointCount, missing: rows.length - pointCount };
  return units.size === 0 ? decoded : { ...decoded, units };
}

function timeOf(timeS: number): Pick<Sample, 'tsMicros' | 'ageMs' | 'upMs'> {
  const max = Number.MAX_SAFE_INTEGER;
  if (timeS >= 2 ** 28) {
    return { tsMicros: Math.min(max, Math.round(timeS * 1e6)), ageMs: null, upMs: null };
  }
  const ageMs = timeS === 0 ? null : Math.min(max, -timeS * 1000);
  return { tsMicros: null, ageMs, upMs: null };
}

function pointOf(metric: string, value: unknown): Point[] {
  if (typeof value === 'boolean') {
    return [{ metric, kind: 'bool', value: Number(value), text: null }];
  }
  if (typeof value === 'string') {
    return MISSING.test(value) ? [] : [{ metric, kind: 'text', value: null, text: value }];
  }
  const isValue = typeof value === 'number' && Math.abs(value) <= VALUE_MAX;
  return isValue ? [{ metric, kind: 'number', value, text: null }] : [];
}

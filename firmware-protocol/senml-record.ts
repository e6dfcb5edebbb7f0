// HOT PATH: once per record in SenML
import { Refusal } from './contract.ts';
import { shown } from './metric-name.ts';

/** One more than a metric's name may have. Characters. */
const NAME_TAIL_MAX = 65;

/** Integer keys of SenML in CBOR, RFC 8428, 6. */
export const SENML_LABELS: ReadonlyMap<number, string> = new Map([
  [-1, 'bver'],
  [-2, 'bn'],
  [-3, 'bt'],
  [-4, 'bu'],
  [-5, 'bv'],
  [-6, 'bs'],
  [0, 'n'],
  [1, 'u'],
  [2, 'v'],
  [3, 'vs'],
  [4, 'vb'],
  [5, 's'],
  [6, 't'],
  [7, 'ut'],
  [8, 'vd'],
]);

/** Members of a record that are read; what else there is, is left alone. */
export interface SenmlRecord {
  bver?: unknown;
  bn?: unknown;
  bt?: unknown;
  bu?: unknown;
  bv?: unknown;
  bs?: unknown;
  n?: unknown;
  u?: unknown;
  v?: unknown;
  vs?: unknown;
  vb?: unknown;
  vd?: unknown;
  s?: unknown;
  t?: unknown;
  ut?: unknown;
}

/**
 * What of a base name may be part of a metric's name: the part behind the last `:` or `/`, which say which
 * device it is. Longer ones are cut: no metric is as long, and each name is put together from it.
 */
export function nameTail(base: string): string {
  const start = Math.max(base.lastIndexOf(':'), base.lastIndexOf('/')) + 1;
  return base.slice(start, start + NAME_TAIL_MAX);
}

/** The metric that a name stands for. What it has before a `:` says which device it is; `/` is a dot. */
export function metricOf(baseTail: string, name: string): string {
  const colon = name.lastIndexOf(':');
  const metric = colon < 0 ? baseTail + name : name.slice(colon + 1);
  return metric.includes('/') ? metric.replaceAll('/', '.') : metric;
}

/** A field whose name ends in `_` must be understood, and none is, RFC 8428, 4.4. */
export function foreignFieldFault(record: object): Refusal | null {
  for (const key in record) {
    if (key.charCodeAt(key.length - 1) === 0x5f) {
      return new Refusal('bad_senml', `field ${shown(key)} must be understood and is not`);
    }
  }
  return null;
}

/** How many of the value fields a record has. */
export function countValues({ v, vs, vb, vd }: SenmlRecord): number {
  return (
    (v === undefined ? 0 : 1) +
    (vs === undefined ? 0 : 1) +
    (vb === undefined ? 0 : 1) +
    (vd === undefined ? 0 : 1)
  );
}

/** Whether a field is a text or not there. */
export function isTextOrAbsent(value: unknown): value is string | undefined {
  return value === undefined || typeof value === 'string';
}

/** Whether a field is a finite number or not there. */
export function isNumberOrAbsent(value: unknown): value is number | undefined {
  return value === undefined || (typeof value === 'number' && Number.isFinite(value));
}

/** The refusal of a field of the wrong type. */
export function badField(field: string, what: string): Refusal {
  return new Refusal('bad_senml', `${field} is not ${what}`);
}

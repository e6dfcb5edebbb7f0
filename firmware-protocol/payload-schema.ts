import { Buffer } from 'node:buffer';
import { z } from 'zod';
import {
  MESSAGE_POINTS_MAX,
  MESSAGE_SAMPLES_MAX,
  METRIC_NAME,
  metricNameSchema,
  SAMPLE_METRICS_MAX,
  TEXT_BYTES_MAX,
  UP_MS_MAX,
  type RefusalCode,
} from './contract.ts';

/*
 * The telemetry payloads of channel `data` and `data/{metric}` as JSON values. This is the contract to
 * read; `telemetry.ts` is its fast form, and a property test holds both against each other. The message
 * of each issue is a RefusalCode; an issue of zod's own means `bad_type`.
 * Values beyond VALUE_MAX count as null, as do numbers beyond a double: JSON has no other word for those.
 */

const code = (refusal: RefusalCode): RefusalCode => refusal;

/** Text that PostgreSQL can store: at most 256 bytes, no U+0000, no half of a surrogate pair. */
export const textSchema = z
  .string()
  .max(TEXT_BYTES_MAX, code('too_big'))
  .refine((text) => Buffer.byteLength(text) <= TEXT_BYTES_MAX, code('too_big'))
  .refine((text) => !/\0|\p{Surrogate}/u.test(text), code('bad_type'));

/** One value. Null, and a text such as `nan` or `-inf`, is a missing sample: nothing is stored. */
export const valueSchema = z.union([z.number(), z.boolean(), textSchema, z.null()]);

/** The payload of `data/{metric}`. Bytes that are not JSON are read as a text. */
export const scalarPayloadSchema = valueSchema;

const seriesValueSchema = z.union([z.array(valueSchema), z.null()]);

/** Members of a sample that say when it was taken. */
const stamp = {
  ts: z
    .number()
    .optional()
    .describe('Unix time: seconds below 1e11, else milliseconds. Kept to the microsecond.'),
  age: z
    .number()
    .min(0)
    .optional()
    .describe(
      'Milliseconds between sample (of a series: its first) and publish. Used without a `ts` that can be right.',
    ),
  up: z
    .number()
    .min(0)
    .max(UP_MS_MAX)
    .optional()
    .describe(
      'Milliseconds from boot to the sample (of a series: its first). Used without `ts` and `age`.',
    ),
  seq: z.int().min(0).optional().describe('Number of the message, counted by the device.'),
};
const noStep = { dt: z.never(code('bad_series')).optional() };
const step = {
  dt: z.number().positive().describe('Milliseconds from each sample of a series to the next.'),
};
const unwrapped = { values: z.never().optional() };

/** Metrics by name. Objects nest up to three levels; their names are joined by dots. */
function membersOf<Leaf extends z.ZodType>(leaf: Leaf) {
  const inner = z.record(z.string(), leaf);
  return z.union([leaf, z.record(z.string(), z.union([leaf, inner]))]);
}
const plainMembers = membersOf(valueSchema);
const seriesMembers = membersOf(seriesValueSchema);

/** One point in time: `{"ts":1795235431857,"seq":1234,"temp":21.5,"bme":{"rh":48}}`. */
export const sampleSchema = z
  .object({ ...stamp, ...noStep, ...unwrapped })
  .catchall(plainMembers)
  .superRefine(({ ts: _ts, age: _age, up: _up, seq: _seq, ...metrics }, context) =>
    refineMetrics(metrics, context),
  );

/** The same with the metrics set apart: `{"ts":1795235431857,"values":{"temp":21.5}}`. */
export const wrappedSampleSchema = z.strictObject({
  ...stamp,
  values: z.record(z.string(), plainMembers).superRefine(refineMetrics),
});

/** Samples `dt` milliseconds apart: `{"ts":1795235431857,"dt":1000,"temp":[21.5,null],"rh":[48,49]}`. */
export const seriesSchema = z
  .object({ ...stamp, ...step, ...unwrapped })
  .catchall(seriesMembers)
  .superRefine(({ ts: _ts, age: _age, up: _up, seq: _seq, dt: _dt, ...metrics }, context) =>
    refineSeries(metrics, context),
  );

/** A series with the metrics set apart. */
export const wrappedSeriesSchema = z.strictObject({
  ...stamp,
  ...step,
  values: z.record(z.string(), seriesMembers).superRefine(refineSeries),
});

const itemSchema = z.union([sampleSchema, wrappedSampleSchema, seriesSchema, wrappedSeriesSchema]);

/** The payload of channel `data`: a sample, a series, or an array of both. */
export const dataPayloadSchema = z
  .union([itemSchema, z.array(itemSchema)])
  .superRefine((payload, context) => {
    const items = (Array.isArray(payload) ? payload : [payload]).map(sizeOf);
    const samples = items.reduce((sum, item) => sum + item.samples, 0);
    const values = items.reduce((sum, item) => sum + item.values, 0);
    if (samples > MESSAGE_SAMPLES_MAX || values > MESSAGE_POINTS_MAX) {
      context.addIssue({ code: 'custom', message: code('too_many') });
    }
  });

/** Metrics of a sample or series by their flat names, in the order in which they stand. */
export function flatMembers(members: object, prefix = ''): [string, unknown][] {
  return Object.entries(members).flatMap(([key, value]) =>
    isGroup(value)
      ? flatMembers(value, `${prefix}${key}.`)
      : [[prefix + key, value] satisfies [string, unknown]],
  );
}

function groupNames(members: object, prefix = ''): string[] {
  return Object.entries(members).flatMap(([key, value]) =>
    isGroup(value) ? [prefix + key, ...groupNames(value, `${prefix}${key}.`)] : [],
  );
}

function isGroup(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function refineMetrics(metrics: object, context: z.RefinementCtx): void {
  const names = flatMembers(metrics).map(([name]) => name);
  const isGood = (name: string) => metricNameSchema.safeParse(name).success;
  const isGoodGroup = (name: string) => METRIC_NAME.test(name);
  const isUnique = new Set(names).size === names.length;
  if (!names.every(isGood) || !groupNames(metrics).every(isGoodGroup) || !isUnique) {
    context.addIssue({ code: 'custom', message: code('bad_name') });
  }
  if (names.length > SAMPLE_METRICS_MAX) {
    context.addIssue({ code: 'custom', message: code('too_many') });
  }
}

function refineSeries(metrics: object, context: z.RefinementCtx): void {
  refineMetrics(metrics, context);
  const columns = flatMembers(metrics).filter(([, column]) => Array.isArray(column));
  if (new Set(columns.map(([, column]) => (column as unknown[]).length)).size > 1) {
    context.addIssue({ code: 'custom', message: code('bad_series') });
  }
}

function sizeOf(item: Readonly<Record<string, unknown>>): { samples: number; values: number } {
  const { ts: _ts, age: _age, up: _up, seq: _seq, dt, values, ...rest } = item;
  const columns = flatMembers(isGroup(values) ? values : rest).map(([, column]) => column);
  if (dt === undefined) return { samples: 1, values: columns.length };
  const lengths = columns.filter((column) => Array.isArray(column)).map(({ length }) => length);
  const nulls = columns.length - lengths.length;
  return { samples: lengths[0] ?? 0, values: lengths.reduce((sum, size) => sum + size, nulls) };
}

import { z } from 'zod';
import { EVENT_NAME } from '../../firmware-protocol/contract.ts';
import { isMetricName } from '../../firmware-protocol/metric-name.ts';
import { DURATION_HINT, formatDuration, parseDuration } from '../../duration.ts';
import { strictObject } from '../rule-faults.ts';
import { compileCel } from './cel-program.ts';
import { CEL_CHARS_MAX, faultText } from './cel-syntax.ts';
import {
  OF_SAMPLES_MAX,
  SPAN_MICROS_MAX,
  TEXT_CHARS_MAX,
  WINDOW_SAMPLES_MAX,
} from './condition-bounds.ts';
import {
  CONNECTION_STATES,
  NUMBER_OPERATORS,
  SILENCES,
  type Condition,
  type NumberOperator,
  type WindowFunction,
} from './condition.ts';

const FUNCTION = /^(?:avg|min|max|sum|count|delta|rate|stddev|p[1-9]\d?)$/;

const SILENT_HINT = 'must be "auto", or a duration such as "30s" or "5m"';

const metric = z.string().refine(isMetricName, 'must be the name of a metric');
const op = z.enum(NUMBER_OPERATORS);
const clear = z.number().nullable().default(null);
const span = duration(1000);
const silentFor = z
  .string(SILENT_HINT)
  .transform((given, context) =>
    given === 'auto'
      ? given
      : microsOf(given, context, { microsMin: 1_000_000, hint: SILENT_HINT }),
  );
const scale = { times: z.number().default(1), plus: z.number().default(0) };

interface Clearing {
  readonly op: NumberOperator;
  readonly value: number | boolean | string;
  readonly clear: number | null;
}

/** `{"metric":"temp","op":">","value":80}` */
export const compareSchema = strictObject({
  metric,
  op,
  value: z.union(
    [z.number(), z.boolean(), text(TEXT_CHARS_MAX)],
    `must be a number, true, false, or a text of at most ${TEXT_CHARS_MAX} characters`,
  ),
  clear,
  deadBand: z.number().positive().nullable().default(null),
  of: strictObject({
    n: z.number().int().min(1),
    m: z.number().int().min(2).max(OF_SAMPLES_MAX),
  })
    .refine(({ n, m }) => n <= m, { path: ['n'], message: 'must be at most m' })
    .nullable()
    .default(null),
})
  .superRefine((given, context) => {
    const isEquality = given.op === '==' || given.op === '!=';
    if (typeof given.value !== 'number' && !isEquality) {
      context.addIssue({ code: 'custom', path: ['op'], message: 'must be == or != here' });
    }
    if (given.deadBand !== null && isEquality) {
      context.addIssue({ code: 'custom', path: ['deadBand'], message: 'needs >, >=, < or <=' });
    }
    addClearFault(given, context);
  })
  .transform((given): Condition => ({ kind: 'compare', ...given }));

/** `{"metric":"temp","window":"5m","fn":"avg","op":">","value":80}` */
export const windowSchema = strictObject({
  metric,
  fn: z.custom<WindowFunction>(
    (given) => typeof given === 'string' && FUNCTION.test(given),
    'must be avg, min, max, sum, count, delta, rate, stddev, or a percentile p1 to p99',
  ),
  window: span.optional(),
  samples: z.number().int().min(2).max(WINDOW_SAMPLES_MAX).optional(),
  op,
  value: z.number(),
  clear,
})
  .superRefine((given, context) => {
    if ((given.window === undefined) === (given.samples === undefined)) {
      const message = 'must have either window or samples';
      context.addIssue({ code: 'custom', path: ['window'], message });
    } else if (given.fn === 'count' && given.samples !== undefined) {
      const message = 'must be window: of so many samples there are always as many';
      context.addIssue({ code: 'custom', path: ['samples'], message });
    }
    addClearFault(given, context);
  })
  .transform(({ window, samples, ...rest }): Condition => {
    const size = samples === undefined ? { spanMicros: window ?? 0 } : { samples };
    return { kind: 'window', ...rest, window: size };
  });

/** `{"metric":"temp","stuck":"10m","within":0.1}` */
export const stuckSchema = strictObject({
  metric,
  stuck: span,
  within: z.number().min(0).default(0),
}).transform(({ stuck, ...rest }): Condition => ({ kind: 'stuck', spanMicros: stuck, ...rest }));

/** `{"metric":"temp","op":">","other":"setpoint","plus":5}` */
export const compareMetricSchema = strictObject({
  metric,
  op,
  other: metric,
  ago: duration(0).default(0),
  ...scale,
})
  .refine(({ other, ago, ...given }) => other !== given.metric || ago > 0, {
    path: ['other'],
    message: 'must be another metric, or have ago',
  })
  .transform(({ ago, ...rest }): Condition => ({ kind: 'compareMetric', agoMicros: ago, ...rest }));

/** `{"metric":"temp","op":">","fleet":"avg","tag":"hall-3","plus":5}` */
export const compareFleetSchema = strictObject({
  metric,
  op,
  fleet: z.enum(['avg', 'min', 'max', 'median']),
  tag: text(48).min(1),
  ...scale,
}).transform(({ fleet, ...rest }): Condition => ({ kind: 'compareFleet', fn: fleet, ...rest }));

/** `{"event":"door.open","holds":"10s"}` */
export const eventSchema = strictObject({
  event: z.string().regex(EVENT_NAME, 'must be the name of an event'),
  holds: duration(0).default(0),
}).transform(({ event, holds }): Condition => ({ kind: 'event', name: event, holdsMicros: holds }));

/** `{"connection":"offline"}` */
export const connectionSchema = strictObject({ connection: z.enum(CONNECTION_STATES) }).transform(
  ({ connection }): Condition => ({ kind: 'connection', is: connection }),
);

/** `{"noData":"5m","kinds":["offline"]}` */
export const noDataSchema = strictObject({
  noData: silentFor,
  kinds: z
    .array(z.enum(SILENCES))
    .min(1)
    .refine(areUnique, 'must not name one twice')
    .default([...SILENCES]),
}).transform(({ noData, kinds }): Condition => ({ kind: 'noData', afterMicros: noData, kinds }));

/** `{"cel":"temp > 80 && rh < 40"}` */
export const celSchema = strictObject({
  cel: text(CEL_CHARS_MAX).superRefine((expression, context) => {
    if (expression.length > CEL_CHARS_MAX) return;
    try {
      compileCel(expression);
    } catch (error) {
      context.addIssue(faultText(error));
    }
  }),
}).transform(({ cel }): Condition => ({ kind: 'cel', expression: cel }));

/** PostgreSQL stores neither U+0000 nor halves of surrogate pairs. */
function text(charsMax: number) {
  return z
    .string()
    .max(charsMax)
    .refine((given) => !/\p{Cc}|\p{Cs}/u.test(given), 'must not have control characters');
}

function areUnique(names: readonly string[]): boolean {
  return new Set(names).size === names.length;
}

/** A hysteresis has its clear threshold on the side where the condition does not hold. */
function addClearFault(
  { op: operator, value, clear: cleared }: Clearing,
  context: z.RefinementCtx,
) {
  if (cleared === null) return;
  const isAbove = operator === '>' || operator === '>=';
  const isBelow = operator === '<' || operator === '<=';
  if (typeof value !== 'number' || !(isAbove || isBelow)) {
    context.addIssue({ code: 'custom', path: ['clear'], message: 'needs >, >=, < or <=' });
  } else if (isAbove ? cleared >= value : cleared <= value) {
    const message = `must be ${isAbove ? 'below' : 'above'} value, ${value}`;
    context.addIssue({ code: 'custom', path: ['clear'], message });
  }
}

function duration(microsMin: number) {
  return z
    .string(DURATION_HINT)
    .transform((given, context) => microsOf(given, context, { microsMin, hint: DURATION_HINT }));
}

function microsOf(
  given: string,
  context: z.RefinementCtx,
  { microsMin, hint }: { readonly microsMin: number; readonly hint: string },
): number {
  const micros = parseDuration(given);
  if (micros === null) context.addIssue(hint);
  else if (micros > SPAN_MICROS_MAX || micros < microsMin) {
    const [least, most] = [microsMin, SPAN_MICROS_MAX].map(formatDuration);
    context.addIssue(`must be ${least} to ${most}`);
  } else return micros;
  return z.NEVER;
}

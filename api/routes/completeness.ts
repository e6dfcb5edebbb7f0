import { z } from 'zod';
import { RequestInvalidError } from '../../errors.ts';
import type {
  BootCompleteness,
  Completeness,
  CompletenessQuery,
  MetricCompleteness,
} from '../../ingest/completeness.ts';
import type { Devices } from '../../registry/devices.ts';
import { defineRoute, type Route } from '../route.ts';
import { deviceParams, timeAnswer, timeText } from '../schemas.ts';
import { formatMicros } from '../time-text.ts';

const DAY_MICROS = 86_400_000_000;
/** Longest window. */
const DAYS_MAX = 92;
const METRICS_ASKED_MAX = 256;
const GAPS_MAX = 1000;
const CADENCE = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h)$/;
const UNIT_MICROS: Readonly<Record<string, number>> = {
  ms: 1000,
  s: 1_000_000,
  m: 60_000_000,
  h: 3_600_000_000,
};

const percent = z
  .number()
  .describe('received / (received + missing), cut to three decimals: 100 says nothing is missing.');
const bootAnswer = z.object({
  boot: z.number().int(),
  firstAt: timeAnswer,
  lastAt: timeAnswer.describe('Exact to a minute.'),
  first: z.number().int().describe('Lowest seq that came.'),
  highest: z.number().int(),
  received: z.number().int(),
  missing: z.number().int().describe('Of the numbers from first to highest.'),
  percent,
  gaps: z
    .array(z.object({ from: z.number().int(), to: z.number().int() }))
    .describe('Numbers that did not come, both included.'),
  forgotten: z.number().int().describe('Missing numbers that are no longer listed as gaps.'),
});
const gapAnswer = z.object({
  from: timeAnswer.describe('When the first missing reading was due.'),
  to: timeAnswer.describe('The reading that ended it, or the end of the window.'),
  missing: z.number().int(),
});
const metricAnswer = z.object({
  metric: z.string(),
  cadenceS: z.number().nullable().describe('Null: fewer than two readings, and none was given.'),
  expected: z.number().int().nullable(),
  received: z.number().int(),
  missing: z.number().int().nullable(),
  percent: percent.nullable(),
  gaps: z.array(gapAnswer),
  gapCount: z.number().int().describe('Of which "gaps" lists the first ones.'),
});

const DESCRIPTION = `By number: for each boot that sent in the window, and that named itself in \`hello\`,
which \`seq\` were stored or are in quarantine, over the whole boot. By time: for each metric the readings
in the window against its cadence. A gap is a time of more than 1.5 cadences between two readings; at its
end it was also looked for a reading before "from", and up to "to" or now. Before the first reading of a
metric nothing is missing. Both are worked out from what is stored now, so that a gap which is filled
later closes. When "gapCount" is more than "gaps" has, go on with "from" at the end of the last gap.`;

/** The route of what is missing of a device. */
export function completenessRoutes(completeness: Completeness, devices: Devices): Route[] {
  return [
    defineRoute({
      method: 'GET',
      path: '/api/v1/devices/{device}/completeness',
      role: 'admin',
      tag: 'readings',
      summary: 'What came of a device, and exactly what did not',
      description: DESCRIPTION,
      params: deviceParams,
      query: completenessQuery(),
      answers: {
        200: {
          description: 'What is there, and the gaps.',
          schema: z.object({
            from: timeAnswer,
            to: timeAnswer,
            boots: z.array(bootAnswer),
            metrics: z.array(metricAnswer),
          }),
        },
      },
      async handle({ principal: { organizationId }, params, query }) {
        const { from, to, boot = null, metric = null, cadence = null, gaps } = query;
        const nowMicros = Date.now() * 1000;
        const toMicros = Math.min(to ?? nowMicros, nowMicros);
        const fromMicros = from ?? toMicros - DAY_MICROS;
        if (fromMicros > toMicros || toMicros - fromMicros > DAYS_MAX * DAY_MICROS) {
          throw new RequestInvalidError([
            `query.from: must be before "to" and before now, and at most ${DAYS_MAX} days before`,
          ]);
        }
        const { deviceId } = await devices.get(organizationId, params.device);
        const asked: CompletenessQuery = {
          organizationId,
          deviceId,
          fromMicros,
          toMicros,
          boot,
          metrics: metric,
          cadenceMicros: cadence,
          gapsMax: gaps,
        };
        const boots = await completeness.boots(asked);
        const metrics = await completeness.metrics(asked);
        const body = {
          from: formatMicros(fromMicros),
          to: formatMicros(toMicros),
          boots: boots.map(bootBody),
          metrics: metrics.map(metricBody),
        };
        return { status: 200, body };
      },
    }),
  ];
}

function completenessQuery() {
  const metricName = z
    .string()
    .min(1)
    .max(64)
    .refine((name) => !name.includes('\0'), 'has a character that no metric has');
  return z.strictObject({
    from: timeText.optional().describe('First time, inclusive. A day before "to" when left out.'),
    to: timeText.optional().describe('Last time, exclusive. Now when left out, or when later.'),
    boot: z.coerce.number().int().min(0).max(Number.MAX_SAFE_INTEGER).optional(),
    metric: z
      .union([metricName, z.array(metricName).max(METRICS_ASKED_MAX)])
      .transform((named) => [...new Set(Array.isArray(named) ? named : [named])])
      .optional()
      .describe('Only this metric; may be given several times.'),
    cadence: z
      .string()
      .transform((text, context) => {
        const [, amount, unit = ''] = CADENCE.exec(text) ?? [];
        const micros = Number(amount) * (UNIT_MICROS[unit] ?? Number.NaN);
        if (micros >= 1000) return Math.round(micros);
        context.addIssue('must be like 500ms, 60s, 15m or 1h');
        return z.NEVER;
      })
      .optional()
      .describe('Interval of readings: 60s. When left out, the median interval of each metric.'),
    gaps: z.coerce
      .number()
      .int()
      .min(1)
      .max(GAPS_MAX)
      .default(100)
      .describe('Most gaps of a metric.'),
  });
}

function bootBody(boot: BootCompleteness): z.input<typeof bootAnswer> {
  return {
    boot: boot.boot,
    firstAt: boot.firstAt.toISOString(),
    lastAt: boot.lastAt.toISOString(),
    first: boot.first,
    highest: boot.highest,
    received: boot.received,
    missing: boot.missing,
    percent: boot.percent,
    gaps: [...boot.gaps],
    forgotten: boot.forgotten,
  };
}

function metricBody(metric: MetricCompleteness): z.input<typeof metricAnswer> {
  const { received, missing, cadenceMicros } = metric;
  return {
    metric: metric.metric,
    cadenceS: cadenceMicros === null ? null : cadenceMicros / 1_000_000,
    expected: missing === null ? null : received + missing,
    received,
    missing,
    percent: metric.percent,
    gaps: metric.gaps.map((gap) => ({
      from: formatMicros(Math.round(gap.fromMicros)),
      to: formatMicros(Math.round(gap.toMicros)),
      missing: gap.missing,
    })),
    gapCount: metric.gapCount,
  };
}

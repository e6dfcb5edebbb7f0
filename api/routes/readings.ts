import { z } from 'zod';
import type { History, LatestReading, Reading } from '../../ingest/history.ts';
import { QUALITY_NAMES } from '../../firmware-protocol/contract.ts';
import type { Devices } from '../../registry/devices.ts';
import type { MetricList } from '../../registry/metric-list.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import { cursorQuery, deviceParams, limitQuery, pageOf, timeAnswer, timeText } from '../schemas.ts';
import { formatMicros } from '../time-text.ts';

/** What the routes of readings need. */
export interface ReadingRoutesDeps {
  readonly devices: Devices;
  readonly metricList: MetricList;
  readonly history: History;
  readonly pageRowsMax: number;
}

const METRICS_ASKED_MAX = 256;

const valueAnswer = z.union([z.number(), z.boolean(), z.string(), z.null()]);
const readingAnswer = z.object({ time: timeAnswer, metric: z.string(), value: valueAnswer });
const kindAnswer = z.enum(['number', 'bool', 'text']);
const latestAnswer = readingAnswer.extend({
  kind: kindAnswer,
  unit: z.string().nullable(),
  receivedAt: timeAnswer,
  quality: z
    .enum(QUALITY_NAMES)
    .describe(
      'Where the time is from. server_ts: receipt, as the clock of the device cannot be right. corrected: its ts less what its clock is known to be ahead.',
    ),
});
const metricAnswer = z.object({ name: z.string(), kind: kindAnswer, unit: z.string().nullable() });

const metricName = z
  .string()
  .min(1)
  .max(64)
  .refine((name) => !name.includes('\0'), 'has a character that no metric has');
const readingPlace = z.tuple([z.number().int(), z.int32()]);
const metricPlace = z.tuple([z.string()]);

/** The routes of what devices sent. */
export function readingRoutes(deps: ReadingRoutesDeps): Route[] {
  return [readingsRoute(deps), latestRoute(deps), metricsRoute(deps)];
}

function readingsRoute({ devices, history, pageRowsMax }: ReadingRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/devices/{device}/readings',
    role: 'admin',
    tag: 'readings',
    summary: 'History of a device, newest first unless asked otherwise',
    params: deviceParams,
    query: z.strictObject(periodMembers(pageRowsMax)).refine(isPeriod, PERIOD_FAULT),
    answers: { 200: { description: 'A page of readings.', schema: pageOf(readingAnswer) } },
    async handle({ principal: { organizationId }, params, query }) {
      const { metric: metrics = null, from = null, to = null, order, limit, cursor } = query;
      const { deviceId } = await devices.get(organizationId, params.device);
      const filters = ['readings', deviceId, metrics, from, to, order];
      const place = cursor === undefined ? null : readCursor(filters, readingPlace, cursor);
      const { rows, hasMore } = await history.readings({
        organizationId,
        deviceId,
        metrics,
        fromMicros: from,
        toMicros: to,
        order,
        limit,
        after: place === null ? null : { timeMicros: place[0], metricId: place[1] },
      });
      const last = rows.at(-1);
      const next = hasMore ? writeCursor(filters, [last?.timeMicros, last?.metricId]) : null;
      return { status: 200, body: { data: rows.map(readingBody), next } };
    },
  });
}

/** What the query of a list of a period has: metrics, times, order, and the page. */
export function periodMembers(pageRowsMax: number) {
  return {
    metric: z
      .union([metricName, z.array(metricName).max(METRICS_ASKED_MAX)])
      .transform((named) => [...new Set(Array.isArray(named) ? named : [named])].sort())
      .optional()
      .describe('Only this metric; may be given several times. All metrics when left out.'),
    from: timeText.optional().describe('First time, inclusive.'),
    to: timeText.optional().describe('Last time, exclusive.'),
    order: z.enum(['asc', 'desc']).default('desc').describe('By time. desc: newest first.'),
    limit: limitQuery(1000, pageRowsMax),
    cursor: cursorQuery,
  };
}

/** Whether a period does not end before it begins. */
export function isPeriod(query: {
  readonly from?: number | undefined;
  readonly to?: number | undefined;
}): boolean {
  return query.from === undefined || query.to === undefined || query.from <= query.to;
}

/** What is said of a query that is no {@link isPeriod}. */
export const PERIOD_FAULT = { path: ['from'], message: 'must not be after "to"' };

function latestRoute({ devices, history }: ReadingRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/devices/{device}/latest',
    role: 'admin',
    tag: 'readings',
    summary: 'Newest value of each metric of a device, in the order of names',
    description: 'Always whole, without pages: a device has at most DEVICE_METRICS_MAX metrics.',
    params: deviceParams,
    answers: { 200: { description: 'One entry a metric.', schema: pageOf(latestAnswer) } },
    async handle({ principal: { organizationId }, params }) {
      const { deviceId } = await devices.get(organizationId, params.device);
      const latest = await history.latest(organizationId, deviceId);
      return { status: 200, body: { data: latest.map(latestBody), next: null } };
    },
  });
}

function metricsRoute({ metricList, pageRowsMax }: ReadingRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/metrics',
    role: 'admin',
    tag: 'readings',
    summary: 'Metrics of the organization, in the order of names',
    query: z.strictObject({ limit: limitQuery(100, pageRowsMax), cursor: cursorQuery }),
    answers: { 200: { description: 'A page of metrics.', schema: pageOf(metricAnswer) } },
    async handle({ principal: { organizationId }, query: { limit, cursor } }) {
      const filters = ['metrics', organizationId];
      const after = cursor === undefined ? null : readCursor(filters, metricPlace, cursor)[0];
      const { rows, hasMore } = await metricList.list({ organizationId, limit, after });
      const next = hasMore ? writeCursor(filters, [rows.at(-1)?.name]) : null;
      return { status: 200, body: { data: rows, next } };
    },
  });
}

function readingBody(reading: Reading): z.input<typeof readingAnswer> {
  return {
    time: formatMicros(reading.timeMicros),
    metric: reading.metric,
    value: valueOf(reading),
  };
}

function latestBody(reading: LatestReading): object {
  return {
    ...readingBody(reading),
    kind: reading.kind,
    unit: reading.unit,
    receivedAt: formatMicros(reading.receivedMicros),
    quality: QUALITY_NAMES[reading.quality] ?? 'receipt',
  };
}

function valueOf({ kind, value, text }: Reading): number | boolean | string | null {
  if (text !== null) return text;
  const isTruth = kind === 'bool' && (value === 0 || value === 1);
  return isTruth ? value === 1 : value;
}

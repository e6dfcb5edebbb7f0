import { z } from 'zod';
import type { Aggregate } from '../../ingest/aggregate-history.ts';
import type { History } from '../../ingest/history.ts';
import type { Devices } from '../../registry/devices.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import { deviceParams, pageOf, timeAnswer } from '../schemas.ts';
import { formatMicros } from '../time-text.ts';
import { isPeriod, PERIOD_FAULT, periodMembers } from './readings.ts';

const aggregateAnswer = z.object({
  time: timeAnswer,
  metric: z.string(),
  count: z.number().int(),
  sum: z.number(),
  min: z.number(),
  max: z.number(),
  first: z.number(),
  last: z.number(),
  avg: z.number(),
});
const place = z.tuple([z.number().int(), z.int32()]);
const LEVEL_NAMES = ['1m', '1h', '1d'] as const;

/** The route of aggregated history. */
export function aggregateRoutes(deps: {
  readonly devices: Devices;
  readonly history: History;
  readonly pageRowsMax: number;
}): Route[] {
  const { devices, history, pageRowsMax } = deps;
  return [
    defineRoute({
      method: 'GET',
      path: '/api/v1/devices/{device}/aggregates',
      role: 'admin',
      tag: 'readings',
      summary: 'Aggregates of a device by minute, hour or day, newest first unless asked otherwise',
      description:
        'Up to this moment, with the buckets that are not over yet. "time" is the beginning of a bucket in UTC; "from" and "to" are compared with it. Numbers and bools (1 or 0) only; a bucket without any is left out. Late readings show within a minute or so.',
      params: deviceParams,
      query: z
        .strictObject({
          bucket: z.enum(LEVEL_NAMES).default('1h').describe('A minute, an hour or a day.'),
          ...periodMembers(pageRowsMax),
        })
        .refine(isPeriod, PERIOD_FAULT),
      answers: { 200: { description: 'A page of buckets.', schema: pageOf(aggregateAnswer) } },
      async handle({ principal: { organizationId }, params, query }) {
        const { metric: metrics = null, from = null, to = null, order, limit, cursor } = query;
        const { deviceId } = await devices.get(organizationId, params.device);
        const filters = ['aggregates', deviceId, query.bucket, metrics, from, to, order];
        const after = cursor === undefined ? null : readCursor(filters, place, cursor);
        const { rows, hasMore } = await history.aggregates({
          organizationId,
          deviceId,
          level: query.bucket,
          metrics,
          fromMicros: from,
          toMicros: to,
          order,
          limit,
          after: after === null ? null : { timeMicros: after[0], metricId: after[1] },
        });
        const last = rows.at(-1);
        const next = hasMore ? writeCursor(filters, [last?.timeMicros, last?.metricId]) : null;
        return { status: 200, body: { data: rows.map(bodyOf), next } };
      },
    }),
  ];
}

function bodyOf(aggregate: Aggregate): z.input<typeof aggregateAnswer> {
  const { timeMicros, metricId: _, ...figures } = aggregate;
  const { sum, count } = figures;
  return { time: formatMicros(timeMicros), ...figures, avg: sum / count };
}

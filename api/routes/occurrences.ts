import { z } from 'zod';
import { EVENT_NAME, QUALITY_NAMES } from '../../firmware-protocol/contract.ts';
import { LOG_TAG_CHARS_MAX } from '../../firmware-protocol/log-entry.ts';
import type { Occurrences, StoredEvent, StoredLogEntry } from '../../ingest/occurrences.ts';
import type { Devices } from '../../registry/devices.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import { cursorQuery, deviceParams, limitQuery, pageOf, timeAnswer, timeText } from '../schemas.ts';
import { formatMicros } from '../time-text.ts';

/** What the routes of events and logs need. */
export interface OccurrenceRoutesDeps {
  readonly devices: Devices;
  readonly occurrences: Occurrences;
  readonly pageRowsMax: number;
}

const eventAnswer = z.object({
  time: timeAnswer,
  name: z.string(),
  content: z.unknown().describe('The JSON of the device; null when it sent none.'),
  receivedAt: timeAnswer,
  quality: z.enum(QUALITY_NAMES).describe('Where the time is from, as of readings.'),
});
const level = z.enum(['E', 'W', 'I', 'D', 'V']);
const logAnswer = z.object({
  time: timeAnswer.describe('Of receipt: log lines have no time of their own.'),
  level: level.nullable().describe('Error, warning, info, debug, verbose; null of other lines.'),
  tag: z.string().nullable(),
  uptimeMs: z.number().int().nullable().describe('Milliseconds since boot.'),
  message: z.string(),
});
const eventPlace = z.tuple([z.number().int(), z.string()]);
const logPlace = z.tuple([z.number().int()]);

/** The routes of what devices said that is no reading. */
export function occurrenceRoutes(deps: OccurrenceRoutesDeps): Route[] {
  return [eventsRoute(deps), logsRoute(deps)];
}

function eventsRoute({ devices, occurrences, pageRowsMax }: OccurrenceRoutesDeps): Route {
  const name = z.string().regex(EVENT_NAME).optional().describe('Only events of this name.');
  return defineRoute({
    method: 'GET',
    path: '/api/v1/devices/{device}/events',
    role: 'admin',
    tag: 'events',
    summary: 'Events of a device, newest first unless asked otherwise',
    description:
      'What the device published on event/{name}. What happened to its connection is in its diagnostics.',
    params: deviceParams,
    query: inTime({ name, ...paging(pageRowsMax) }),
    answers: { 200: { description: 'A page of events.', schema: pageOf(eventAnswer) } },
    async handle({ principal: { organizationId }, params, query }) {
      const { name: named = null, from = null, to = null, order, limit, cursor } = query;
      const { deviceId } = await devices.get(organizationId, params.device);
      const filters = ['events', deviceId, named, from, to, order];
      const place = cursor === undefined ? null : readCursor(filters, eventPlace, cursor);
      const { rows, hasMore } = await occurrences.events({
        organizationId,
        deviceId,
        name: named,
        fromMicros: from,
        toMicros: to,
        order,
        limit,
        after: place === null ? null : { timeMicros: place[0], name: place[1] },
      });
      const last = rows.at(-1);
      const next = hasMore ? writeCursor(filters, [last?.timeMicros, last?.name]) : null;
      return { status: 200, body: { data: rows.map(eventBody), next } };
    },
  });
}

function logsRoute({ devices, occurrences, pageRowsMax }: OccurrenceRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/devices/{device}/logs',
    role: 'admin',
    tag: 'events',
    summary: 'Log lines of a device, newest first unless asked otherwise',
    description:
      'What the device published on log. Ask for a short time when filters leave out most.',
    params: deviceParams,
    query: inTime({
      level: z
        .union([level, z.array(level).max(5)])
        .transform((asked) => [...new Set(Array.isArray(asked) ? asked : [asked])].sort())
        .optional()
        .describe('Only this level; may be given several times.'),
      tag: tagText.optional().describe('Only lines of this tag.'),
      ...paging(pageRowsMax),
    }),
    answers: { 200: { description: 'A page of lines.', schema: pageOf(logAnswer) } },
    async handle({ principal: { organizationId }, params, query }) {
      const { level: levels = null, tag = null, from = null, to = null } = query;
      const { order, limit, cursor } = query;
      const { deviceId } = await devices.get(organizationId, params.device);
      const filters = ['logs', deviceId, levels, tag, from, to, order];
      const after = cursor === undefined ? null : readCursor(filters, logPlace, cursor)[0];
      const asked = { organizationId, deviceId, levels, tag, order, limit, after };
      const page = await occurrences.logEntries({ ...asked, fromMicros: from, toMicros: to });
      const { rows, hasMore } = page;
      const next = hasMore ? writeCursor(filters, [rows.at(-1)?.timeMicros]) : null;
      return { status: 200, body: { data: rows.map(logBody), next } };
    },
  });
}

const tagText = z
  .string()
  .min(1)
  .max(LOG_TAG_CHARS_MAX)
  .refine((text) => !text.includes('\0'), 'has a character that no tag has');

function paging(pageRowsMax: number) {
  return {
    from: timeText.optional().describe('First time, inclusive.'),
    to: timeText.optional().describe('Last time, exclusive.'),
    order: z.enum(['asc', 'desc']).default('desc').describe('By time. desc: newest first.'),
    limit: limitQuery(100, pageRowsMax),
    cursor: cursorQuery,
  };
}

function inTime<Shape extends ReturnType<typeof paging>>(shape: Shape) {
  return z.strictObject(shape).refine(
    (query) => {
      const { from, to } = query as { from?: number; to?: number };
      return from === undefined || to === undefined || from <= to;
    },
    { path: ['from'], message: 'must not be after "to"' },
  );
}

function eventBody(event: StoredEvent): z.input<typeof eventAnswer> {
  return {
    time: formatMicros(event.timeMicros),
    name: event.name,
    content: event.content,
    receivedAt: formatMicros(event.receivedMicros),
    quality: QUALITY_NAMES[event.quality] ?? 'receipt',
  };
}

function logBody({ timeMicros, ...line }: StoredLogEntry): z.input<typeof logAnswer> {
  return { time: formatMicros(timeMicros), ...line };
}

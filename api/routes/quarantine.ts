import { z } from 'zod';
import { QuarantineNotFoundError } from '../../errors.ts';
import type { Quarantine } from '../../ingest/quarantine.ts';
import type { QuarantineFilter } from '../../ingest/quarantine-row.ts';
import type { Reinjection } from '../../ingest/reinjection.ts';
import type { Devices } from '../../registry/devices.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import { cursorQuery, limitQuery, pageOf, timeText, uuidOf } from '../schemas.ts';
import { authorOf } from './devices.ts';
import {
  bodyOf,
  encoding,
  inspectedAnswer,
  inspectedBody,
  messageAnswer,
  outcomeAnswer,
  outcomeBody,
} from './quarantine-answers.ts';

/** What the routes of quarantine need. */
export interface QuarantineRoutesDeps {
  readonly quarantine: Quarantine;
  readonly reinjection: Pick<Reinjection, 'one' | 'many'>;
  readonly devices: Devices;
  readonly pageRowsMax: number;
}

/** Largest payload that a message may be given: the contract's largest packet. */
const PAYLOAD_BYTES_MAX = 65_536;
const TOPIC_CHARS_MAX = 256;
const REINJECTED_MAX = 1000;
const DELETED_MAX = 5000;

const place = z.tuple([z.uuid()]);
const messageParams = z.strictObject({ quarantineId: z.string().describe('Id of the message.') });
const code = z
  .string()
  .regex(/^[a-z_]{1,40}$/)
  .optional()
  .describe('Only with this code.');
const filterMembers = {
  device: z.string().optional().describe('Only of this device.'),
  code,
  from: timeText.optional().describe('First time of receipt, inclusive.'),
  to: timeText.optional().describe('Last time of receipt, exclusive.'),
};

interface FilterRequest {
  readonly device?: string | undefined;
  readonly code?: string | undefined;
  readonly from?: number | undefined;
  readonly to?: number | undefined;
}

/** The routes of messages that could not be stored. */
export function quarantineRoutes(deps: QuarantineRoutesDeps): Route[] {
  return [
    listRoute(deps),
    reinjectManyRoute(deps),
    deleteManyRoute(deps),
    getRoute(deps),
    editRoute(deps),
    reinjectOneRoute(deps),
    deleteRoute(deps),
  ];
}

function listRoute({ quarantine, devices, pageRowsMax }: QuarantineRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/quarantine',
    role: 'admin',
    tag: 'quarantine',
    summary: 'Messages that were acknowledged but not stored as readings, newest first',
    description: 'A page also ends when its payloads reach 8 MiB; "next" tells as always.',
    query: z.strictObject({
      ...filterMembers,
      limit: limitQuery(100, pageRowsMax),
      cursor: cursorQuery,
    }),
    answers: { 200: { description: 'A page of messages.', schema: pageOf(messageAnswer) } },
    async handle({ principal: { organizationId }, query: { limit, cursor, ...asked } }) {
      const filter = await filterOf(devices, organizationId, asked);
      const filters = ['quarantine', organizationId, filter];
      const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
      const page = await quarantine.list({ organizationId, ...filter, limit, after });
      const next = page.hasMore ? writeCursor(filters, [page.rows.at(-1)?.quarantineId]) : null;
      return { status: 200, body: { data: page.rows.map(bodyOf), next } };
    },
  });
}

function getRoute({ quarantine }: QuarantineRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/quarantine/{quarantineId}',
    role: 'admin',
    tag: 'quarantine',
    summary: 'Get a message with what to change, and with what it was before it was edited',
    params: messageParams,
    answers: { 200: { description: 'The message.', schema: inspectedAnswer } },
    async handle({ principal: { organizationId }, params }) {
      const message = await quarantine.get(
        organizationId,
        uuidOf(params.quarantineId, QuarantineNotFoundError),
      );
      return { status: 200, body: inspectedBody(message) };
    },
  });
}

function editRoute({ quarantine }: QuarantineRoutesDeps): Route {
  return defineRoute({
    method: 'PATCH',
    path: '/api/v1/quarantine/{quarantineId}',
    role: 'admin',
    tag: 'quarantine',
    summary: 'Change what will be stored of a message',
    description: `What is left out stays. What the device sent is kept as originalPayload. A revision
that is not that of the message is answered with 409 QUARANTINE_CHANGED.`,
    params: messageParams,
    body: editBody(),
    answers: { 200: { description: 'The message as it is now.', schema: inspectedAnswer } },
    async handle({ principal, params, body: { revision, topic, payload } }) {
      const id = uuidOf(params.quarantineId, QuarantineNotFoundError);
      const edited = await quarantine.edit(authorOf(principal), id, { revision, topic, payload });
      return { status: 200, body: inspectedBody(edited) };
    },
  });
}

function editBody() {
  return z
    .strictObject({
      revision: z.string().max(64).describe('Of the message as you read it.'),
      topic: z
        .string()
        .min(1)
        .max(TOPIC_CHARS_MAX)
        .refine((text) => !/\p{Cc}|\p{Cs}/u.test(text), 'must not have control characters')
        .optional(),
      payload: z
        .string()
        .max(PAYLOAD_BYTES_MAX * 2)
        .optional(),
      payloadEncoding: encoding.default('text').describe('Of "payload".'),
    })
    .refine(({ topic, payload }) => topic !== undefined || payload !== undefined, {
      message: 'must change "topic" or "payload"',
    })
    .transform(({ payload, payloadEncoding, ...rest }, context) => {
      if (payload === undefined) return { ...rest, payload };
      const bytes = Buffer.from(payload, payloadEncoding === 'text' ? 'utf8' : 'base64');
      if (bytes.length <= PAYLOAD_BYTES_MAX) return { ...rest, payload: bytes };
      context.addIssue(`payload: must be at most ${PAYLOAD_BYTES_MAX} bytes`);
      return z.NEVER;
    });
}

function reinjectOneRoute({ reinjection }: QuarantineRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/quarantine/{quarantineId}/reinject',
    role: 'admin',
    tag: 'quarantine',
    summary: 'Send a message through the pipeline again, as if it came when it came first',
    description: REINJECTION,
    params: messageParams,
    answers: { 200: { description: 'What became of it.', schema: outcomeAnswer } },
    async handle({ principal, params }) {
      const result = await reinjection.one(
        authorOf(principal),
        uuidOf(params.quarantineId, QuarantineNotFoundError),
      );
      return { status: 200, body: outcomeBody(result) };
    },
  });
}

const REINJECTION = `What is stored leaves quarantine after its COMMIT; what is refused again stays, once,
with the new reason. Readings get the times that they would have got at first, so that a message that is
sent again twice is stored once. They may be as old as the organization keeps readings, and up to
IMPORT_AGE_MAX_D. Subscribers are not told.
Messages of a device that is in quarantine as a whole stay.`;

function reinjectManyRoute({ reinjection, devices }: QuarantineRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/quarantine/reinject',
    role: 'admin',
    tag: 'quarantine',
    summary: 'Send many messages through the pipeline again, oldest first',
    description: `${REINJECTION} A call tries at most "limit" messages and 8 MiB; go on with "next" until
it is null.`,
    body: z.strictObject({
      ...filterMembers,
      limit: limitQuery(REINJECTED_MAX, REINJECTED_MAX),
      cursor: cursorQuery,
    }),
    answers: {
      200: {
        description: 'What became of them.',
        schema: outcomeAnswer.extend({
          left: z.number().int().describe('Messages behind the last one tried; at most 100 000.'),
          next: z.string().nullable().describe('Cursor to go on with; null at the end.'),
        }),
      },
    },
    async handle({ principal, body: { limit, cursor, ...asked } }) {
      const { organizationId } = principal;
      const filter = await filterOf(devices, organizationId, asked);
      const filters = ['reinjection', organizationId, filter];
      const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
      const result = await reinjection.many(authorOf(principal), { ...filter, limit, after });
      const { left, last } = result;
      const next = left === 0 || last === null ? null : writeCursor(filters, [last]);
      return { status: 200, body: { ...outcomeBody(result), left, next } };
    },
  });
}

function deleteRoute({ quarantine }: QuarantineRoutesDeps): Route {
  return defineRoute({
    method: 'DELETE',
    path: '/api/v1/quarantine/{quarantineId}',
    role: 'admin',
    tag: 'quarantine',
    summary: 'Delete a message for good',
    params: messageParams,
    answers: { 204: { description: 'Gone.', schema: null } },
    async handle({ principal, params }) {
      await quarantine.remove(
        authorOf(principal),
        uuidOf(params.quarantineId, QuarantineNotFoundError),
      );
      return { status: 204 };
    },
  });
}

function deleteManyRoute({ quarantine, devices }: QuarantineRoutesDeps): Route {
  return defineRoute({
    method: 'DELETE',
    path: '/api/v1/quarantine',
    role: 'admin',
    tag: 'quarantine',
    summary: `Delete up to ${DELETED_MAX} messages for good, oldest first`,
    description: 'At least one filter must be given. Ask again while "hasMore" is true.',
    query: z.strictObject(filterMembers).refine((query) => Object.keys(query).length > 0, {
      message: 'must have one of device, code, from, to',
    }),
    answers: {
      200: {
        description: 'How many are gone.',
        schema: z.object({ deleted: z.number().int(), hasMore: z.boolean() }),
      },
    },
    async handle({ principal, query }) {
      const filter = await filterOf(devices, principal.organizationId, query);
      const body = await quarantine.removeMany(authorOf(principal), filter, DELETED_MAX);
      return { status: 200, body };
    },
  });
}

async function filterOf(
  devices: Devices,
  organizationId: number,
  { device, code: asked, from, to }: FilterRequest,
): Promise<QuarantineFilter> {
  const deviceId =
    device === undefined ? null : (await devices.get(organizationId, device)).deviceId;
  return { deviceId, code: asked ?? null, fromMicros: from ?? null, toMicros: to ?? null };
}

import { z } from 'zod';
import { ReceiverNotFoundError } from '../../rule-errors.ts';
import { RECEIVER_KINDS, receiverSettings } from '../../rules/notify/receiver-settings.ts';
import type { Receiver, SavedReceiver } from '../../rules/notify/receivers.ts';
import type { NotifyStores } from '../../rules/notify/stores.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import { cursorQuery, labelText, limitQuery, pageOf, timeAnswer, uuidOf } from '../schemas.ts';
import { authorOf } from './devices.ts';

/** What the routes of receivers need. */
export interface ReceiverRoutesDeps {
  readonly notify: Pick<NotifyStores, 'receivers' | 'test'>;
  readonly pageRowsMax: number;
}

const SECRET_CHARS_MAX = 2048;

const receiverParams = z.strictObject({ receiverId: z.string().describe('Id of the receiver.') });
const place = z.tuple([z.uuid()]);
const settingsAnswer = z.record(z.string(), z.unknown());
const receiverAnswer = z.object({
  id: z.uuid(),
  name: z.string(),
  kind: z.enum(RECEIVER_KINDS),
  settings: settingsAnswer.describe('As they were given, with defaults.'),
  hasSecret: z.boolean().describe('Whether it has a secret, which is never shown.'),
  createdAt: timeAnswer,
  updatedAt: timeAnswer,
});
const savedAnswer = receiverAnswer.extend({
  warnings: z.array(z.string()).describe('What may be a slip: a host that does not resolve.'),
});
const secret = z
  .string()
  .min(1)
  .max(SECRET_CHARS_MAX)
  .nullable()
  .meta({ writeOnly: true })
  .describe(
    'webhook: key of the HMAC; email: password; slack: URL of the webhook; telegram: token of the bot; ntfy: access token. Stored encrypted, never shown.',
  );
const newReceiver = z.discriminatedUnion(
  'kind',
  kinds((kind) =>
    z.strictObject({
      name: labelText(100),
      kind: z.literal(kind),
      settings: receiverSettings[kind],
      secret: secret.default(null),
    }),
  ),
  {
    error: ({ code }) =>
      code === 'invalid_union' ? `must be one of ${RECEIVER_KINDS.join(', ')}` : undefined,
  },
);
const receiverChange = z
  .strictObject({
    name: labelText(100).optional(),
    settings: z.record(z.string(), z.unknown()).optional().describe('All of them, as when made.'),
    secret: secret.optional().describe('Left out: as it is. Null: none any more.'),
  })
  .refine((change) => Object.keys(change).length > 0, {
    message: 'must change "name", "settings" or "secret"',
  });

/** One schema for each kind; a union needs at least one. */
function kinds<Schema>(
  schemaOf: (kind: (typeof RECEIVER_KINDS)[number]) => Schema,
): [Schema, ...Schema[]] {
  const [first, ...others] = RECEIVER_KINDS;
  return [schemaOf(first), ...others.map(schemaOf)];
}

/** The routes of receivers of notifications. */
export function receiverRoutes(deps: ReceiverRoutesDeps): Route[] {
  return [listRoute(deps), createRoute(deps), ...singleRoutes(deps), testRoute(deps)];
}

function listRoute({ notify, pageRowsMax }: ReceiverRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/receivers',
    role: 'admin',
    tag: 'notifications',
    summary: 'List the receivers of notifications, oldest first',
    query: z.strictObject({ limit: limitQuery(100, pageRowsMax), cursor: cursorQuery }),
    answers: { 200: { description: 'A page of receivers.', schema: pageOf(receiverAnswer) } },
    async handle({ principal: { organizationId }, query: { limit, cursor } }) {
      const filters = ['receivers', organizationId];
      const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
      const { rows, hasMore } = await notify.receivers.list({ organizationId, limit, after });
      const next = hasMore ? writeCursor(filters, [rows.at(-1)?.receiverId]) : null;
      return { status: 200, body: { data: rows.map(bodyOf), next } };
    },
  });
}

function createRoute({ notify }: ReceiverRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/receivers',
    role: 'admin',
    tag: 'notifications',
    summary: 'Make a receiver: webhook, email, mqtt, slack, telegram or ntfy',
    description: `Addresses that are not public are refused, unless NOTIFY_PRIVATE_ADDRESSES names them.
Nobody is told of anything before a notification route names the receiver.`,
    body: newReceiver,
    answers: { 201: { description: 'The receiver.', schema: savedAnswer } },
    async handle({ principal, body }) {
      const made = await notify.receivers.create(authorOf(principal), body);
      return {
        status: 201,
        body: savedBody(made),
        headers: { location: `/api/v1/receivers/${made.receiverId}` },
      };
    },
  });
}

function singleRoutes({ notify: { receivers } }: ReceiverRoutesDeps): Route[] {
  const path = '/api/v1/receivers/{receiverId}';
  return [
    defineRoute({
      method: 'GET',
      path,
      role: 'admin',
      tag: 'notifications',
      summary: 'Get a receiver, without its secret',
      params: receiverParams,
      answers: { 200: { description: 'The receiver.', schema: receiverAnswer } },
      async handle({ principal: { organizationId }, params: { receiverId } }) {
        const found = await receivers.get(
          organizationId,
          uuidOf(receiverId, ReceiverNotFoundError),
        );
        return { status: 200, body: bodyOf(found) };
      },
    }),
    defineRoute({
      method: 'PATCH',
      path,
      role: 'admin',
      tag: 'notifications',
      summary: 'Change a receiver',
      description: `What is left out stays. A password or token must be given again when the server
changes that it is sent to.`,
      params: receiverParams,
      body: receiverChange,
      answers: { 200: { description: 'The receiver as it is now.', schema: savedAnswer } },
      async handle({ principal, params: { receiverId }, body }) {
        const id = uuidOf(receiverId, ReceiverNotFoundError);
        const saved = await receivers.update(authorOf(principal), id, body);
        return { status: 200, body: savedBody(saved) };
      },
    }),
    defineRoute({
      method: 'DELETE',
      path,
      role: 'admin',
      tag: 'notifications',
      summary: 'Delete a receiver that no route names; what waits for it is given up',
      params: receiverParams,
      answers: { 204: { description: 'Gone.', schema: null } },
      async handle({ principal, params: { receiverId } }) {
        await receivers.remove(authorOf(principal), uuidOf(receiverId, ReceiverNotFoundError));
        return { status: 204 };
      },
    }),
  ];
}

function testRoute({ notify }: ReceiverRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/receivers/{receiverId}/test',
    role: 'admin',
    tag: 'notifications',
    summary: 'Send a test to a receiver, once and at once',
    description: `Past routes and caps, but not while notifications are stopped. Ten a minute. Whether it
arrived stands in "ok"; the status is 200 in both cases.`,
    params: receiverParams,
    answers: {
      200: {
        description: 'How it ended.',
        schema: z.object({
          notificationId: z.uuid(),
          ok: z.boolean(),
          reason: z.string().nullable().describe('Why it failed.'),
          durationMs: z.number().int(),
        }),
      },
    },
    async handle({ principal, params: { receiverId } }) {
      const result = await notify.test(
        authorOf(principal),
        uuidOf(receiverId, ReceiverNotFoundError),
      );
      return { status: 200, body: result };
    },
  });
}

function bodyOf(receiver: Receiver): z.input<typeof receiverAnswer> {
  const { receiverId, name, kind, settings, hasSecret, createdAt, updatedAt } = receiver;
  return {
    id: receiverId,
    name,
    kind,
    settings: { ...settings },
    hasSecret,
    createdAt: createdAt.toISOString(),
    updatedAt: updatedAt.toISOString(),
  };
}

function savedBody(saved: SavedReceiver): z.input<typeof savedAnswer> {
  return { ...bodyOf(saved), warnings: [...saved.warnings] };
}

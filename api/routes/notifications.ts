import { z } from 'zod';
import { NotificationNotFoundError } from '../../rule-errors.ts';
import {
  NOTIFICATION_STATES,
  type Notification,
  type NotificationDetail,
} from '../../rules/notify/notifications.ts';
import type { NotificationPolicy } from '../../rules/notify/policy.ts';
import type { NotifyStores } from '../../rules/notify/stores.ts';
import { SEVERITIES } from '../../rules/severity.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import { cursorQuery, limitQuery, pageOf, timeAnswer, uuidOf } from '../schemas.ts';
import { authorOf } from './devices.ts';

/** What the routes of notifications need. */
export interface NotificationRoutesDeps {
  readonly notify: Pick<NotifyStores, 'notifications' | 'policies' | 'preview'>;
  readonly pageRowsMax: number;
}

const LABELS_MAX = 64;
const TAGS_MAX = 100;

const notificationParams = z.strictObject({
  notificationId: z.string().describe('Id of the notification.'),
});
const place = z.tuple([z.uuid()]);
const notificationAnswer = z.object({
  id: z.uuid(),
  receiverId: z.uuid().nullable().describe('Null: nobody, as no route matched.'),
  receiver: z.string().nullable(),
  kind: z.string().describe('alert, digest or test.'),
  state: z
    .enum(NOTIFICATION_STATES)
    .describe('dead: given up. suppressed: it was decided not to tell.'),
  reason: z.string().nullable().describe('Why nobody was told, or how the last attempt failed.'),
  by: z.string().nullable().describe('The silence, or the rule and device that inhibited.'),
  attempts: z.number().int(),
  createdAt: timeAnswer,
  nextAttemptAt: timeAnswer.nullable(),
  sentAt: timeAnswer.nullable(),
});
const detailAnswer = notificationAnswer.extend({
  alerts: z.array(z.uuid()).describe('Alerts that it speaks of; at most 1000.'),
  message: z.looseObject({}).nullable().describe('What is sent; null of one that is suppressed.'),
});
const policyAnswer = z.object({
  stopped: z.boolean(),
  stoppedAt: timeAnswer.nullable(),
  stoppedBy: z.string().nullable().describe('Public part of the key that stopped them.'),
});

/** The routes of notifications: what was told, what was not, the preview and the kill switch. */
export function notificationRoutes(deps: NotificationRoutesDeps): Route[] {
  return [
    listRoute(deps),
    previewRoute(deps),
    getRoute(deps),
    resendRoute(deps),
    ...policyRoutes(deps),
  ];
}

function listRoute({ notify, pageRowsMax }: NotificationRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/notifications',
    role: 'admin',
    tag: 'notifications',
    summary: 'List notifications, newest first: sent, waiting, given up, and decided against',
    query: z.strictObject({
      state: z.enum(NOTIFICATION_STATES).optional(),
      receiver: z
        .uuid('must be an id of GET /api/v1/receivers')
        .optional()
        .describe('Only to the receiver with this id.'),
      alert: z
        .uuid('must be an id of GET /api/v1/alerts')
        .optional()
        .describe('Only those that speak of the alert with this id.'),
      limit: limitQuery(100, pageRowsMax),
      cursor: cursorQuery,
    }),
    answers: {
      200: { description: 'A page of notifications.', schema: pageOf(notificationAnswer) },
    },
    async handle({ principal: { organizationId }, query: { limit, cursor, ...asked } }) {
      const filter = {
        state: asked.state ?? null,
        receiverId: asked.receiver ?? null,
        alertId: asked.alert ?? null,
      };
      const filters = ['notifications', organizationId, filter];
      const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
      const page = await notify.notifications.list({ organizationId, limit, after, ...filter });
      const last = page.rows.at(-1)?.notificationId;
      const next = page.hasMore ? writeCursor(filters, [last]) : null;
      return { status: 200, body: { data: page.rows.map(bodyOf), next } };
    },
  });
}

function getRoute({ notify }: NotificationRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/notifications/{notificationId}',
    role: 'admin',
    tag: 'notifications',
    summary: 'Get a notification with what it says',
    params: notificationParams,
    answers: { 200: { description: 'The notification.', schema: detailAnswer } },
    async handle({ principal: { organizationId }, params }) {
      const id = uuidOf(params.notificationId, NotificationNotFoundError);
      return { status: 200, body: detailOf(await notify.notifications.get(organizationId, id)) };
    },
  });
}

function resendRoute({ notify }: NotificationRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/notifications/{notificationId}/resend',
    role: 'admin',
    tag: 'notifications',
    summary: 'Send a notification that was given up again, as a new one',
    params: notificationParams,
    answers: { 201: { description: 'The new notification.', schema: detailAnswer } },
    async handle({ principal, params }) {
      const id = uuidOf(params.notificationId, NotificationNotFoundError);
      const sent = await notify.notifications.resend(authorOf(principal), id);
      const location = `/api/v1/notifications/${sent.notificationId}`;
      return { status: 201, body: detailOf(sent), headers: { location } };
    },
  });
}

function previewRoute({ notify }: NotificationRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/notifications/preview',
    role: 'admin',
    tag: 'notifications',
    summary: 'Who would be told now of an alert, or of one with such labels, and who not and why',
    description: 'Sends nothing. An empty list: no route matches, and nobody is told.',
    body: z.union(
      [
        z.strictObject({
          alert: z.uuid('must be an id of GET /api/v1/alerts').describe('Id of an alert.'),
        }),
        z.strictObject({
          labels: z
            .record(z.string().max(64), z.string().max(256))
            .refine((labels) => Object.keys(labels).length <= LABELS_MAX, 'too many labels'),
          tags: z.array(z.string().max(100)).max(TAGS_MAX).default([]).describe('Of the device.'),
          severity: z.enum(SEVERITIES).default('high'),
        }),
      ],
      { error: sayPreviewForms },
    ),
    answers: {
      200: {
        description: 'Receivers that routes name, in the order of the routes.',
        schema: z.object({
          data: z.array(
            z.object({
              receiverId: z.uuid(),
              name: z.string(),
              kind: z.string(),
              routeId: z.uuid(),
              route: z.string(),
              told: z.boolean(),
              reason: z.string().nullable(),
              by: z.string().nullable(),
            }),
          ),
        }),
      },
    },
    async handle({ principal: { organizationId }, body }) {
      const of = 'alert' in body ? { alertId: body.alert } : body;
      const { receivers } = await notify.preview(organizationId, of);
      const data = receivers.map(({ isTold, ...rest }) => ({ ...rest, told: isTold }));
      return { status: 200, body: { data } };
    },
  });
}

/** Zod's own words when one of the two is there: faults in it are told then. */
function sayPreviewForms({ input }: { readonly input?: unknown }): string | undefined {
  const isObject = typeof input === 'object' && input !== null;
  return isObject && ('alert' in input || 'labels' in input)
    ? undefined
    : 'must have "alert", the id of an alert, or "labels" such as {"device":"first"}, and may then have "tags" and "severity"';
}

function policyRoutes({ notify: { policies } }: NotificationRoutesDeps): Route[] {
  const path = '/api/v1/notification-policy';
  return [
    defineRoute({
      method: 'GET',
      path,
      role: 'admin',
      tag: 'notifications',
      summary: 'Whether notifications are stopped',
      answers: { 200: { description: 'The kill switch.', schema: policyAnswer } },
      async handle({ principal: { organizationId } }) {
        return { status: 200, body: policyOf(await policies.get(organizationId)) };
      },
    }),
    defineRoute({
      method: 'PUT',
      path,
      role: 'admin',
      tag: 'notifications',
      summary: 'Stop all notifications, or let them go on',
      description: `The kill switch. Alerts go on and are recorded. When notifications go on, what is still
firing is told, and what waited is sent, unless it is too old.`,
      body: z.strictObject({ stopped: z.boolean() }),
      answers: { 200: { description: 'The kill switch as it is now.', schema: policyAnswer } },
      async handle({ principal, body: { stopped } }) {
        return { status: 200, body: policyOf(await policies.set(authorOf(principal), stopped)) };
      },
    }),
  ];
}

function policyOf({ stoppedAt, stoppedBy }: NotificationPolicy): z.input<typeof policyAnswer> {
  return {
    stopped: stoppedAt !== null,
    stoppedAt: stoppedAt?.toISOString() ?? null,
    stoppedBy,
  };
}

function bodyOf(notification: Notification): z.input<typeof notificationAnswer> {
  const { notificationId, createdAt, nextAttemptAt, sentAt, ...rest } = notification;
  return {
    id: notificationId,
    receiverId: rest.receiverId,
    receiver: rest.receiver,
    kind: rest.kind,
    state: rest.state,
    reason: rest.reason,
    by: rest.by,
    attempts: rest.attempts,
    createdAt: createdAt.toISOString(),
    nextAttemptAt: nextAttemptAt?.toISOString() ?? null,
    sentAt: sentAt?.toISOString() ?? null,
  };
}

function detailOf(detail: NotificationDetail): z.input<typeof detailAnswer> {
  const { alertIds, message } = detail;
  return {
    ...bodyOf(detail),
    alerts: [...alertIds],
    message: message === null ? null : { ...message },
  };
}

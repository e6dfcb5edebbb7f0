import { z } from 'zod';
import { NotificationRouteNotFoundError } from '../../rule-errors.ts';
import { givenMatchersSchema } from '../../rules/notify/matchers.ts';
import {
  routeSchema,
  type Route as NotificationRoute,
} from '../../rules/notify/route-definition.ts';
import type { NotifyStores } from '../../rules/notify/stores.ts';
import { defineRoute, type Route } from '../route.ts';
import { timeAnswer, uuidOf } from '../schemas.ts';
import { authorOf } from './devices.ts';

/** What the routes of notification routes need. */
export interface NotificationRouteRoutesDeps {
  readonly notify: Pick<NotifyStores, 'routes'>;
}

const PATH = '/api/v1/notification-routes';
const ONE_PATH = '/api/v1/notification-routes/{routeId}';
const POSITION_MAX = 1_000_000;

const routeParams = z.strictObject({ routeId: z.string().describe('Id of the route.') });
const position = z.number().int().min(0).max(POSITION_MAX);
const wantedRoute = routeSchema.extend({
  matchers: givenMatchersSchema.default([]),
  position: position
    .optional()
    .describe('Routes are asked from the lowest on. Left out: last, or where it was.'),
});
const routeAnswer = routeSchema.extend({
  id: z.uuid(),
  position,
  createdAt: timeAnswer,
  updatedAt: timeAnswer,
});
const ORDER = `Routes are asked in the order of their positions; the first that matches decides, unless it
says "continue". An alert that no route matches is recorded, and nobody is told. Behind a change alerts that
are firing are routed anew.`;

/** The routes of notification routes: who is told of which alerts, and when. */
export function notificationRouteRoutes(deps: NotificationRouteRoutesDeps): Route[] {
  const { routes } = deps.notify;
  return [
    defineRoute({
      method: 'GET',
      path: PATH,
      role: 'admin',
      tag: 'notifications',
      summary: 'List the notification routes, in the order in which they are asked',
      answers: {
        200: {
          description: 'All of them; NOTIFY_ROUTES_MAX at most.',
          schema: z.object({ data: z.array(routeAnswer) }),
        },
      },
      async handle({ principal: { organizationId } }) {
        const all = await routes.list(organizationId);
        return { status: 200, body: { data: all.map(bodyOf) } };
      },
    }),
    defineRoute({
      method: 'POST',
      path: PATH,
      role: 'admin',
      tag: 'notifications',
      summary: 'Make a notification route',
      description: ORDER,
      body: wantedRoute,
      answers: { 201: { description: 'The route.', schema: routeAnswer } },
      async handle({ principal, body: { position: place, ...definition } }) {
        const made = await routes.create(authorOf(principal), { definition, position: place });
        const location = `${PATH}/${made.routeId}`;
        return { status: 201, body: bodyOf(made), headers: { location } };
      },
    }),
    ...singleRoutes(deps),
  ];
}

function singleRoutes({ notify: { routes } }: NotificationRouteRoutesDeps): Route[] {
  return [
    defineRoute({
      method: 'GET',
      path: ONE_PATH,
      role: 'admin',
      tag: 'notifications',
      summary: 'Get a notification route',
      params: routeParams,
      answers: { 200: { description: 'The route.', schema: routeAnswer } },
      async handle({ principal: { organizationId }, params: { routeId } }) {
        return {
          status: 200,
          body: bodyOf(
            await routes.get(organizationId, uuidOf(routeId, NotificationRouteNotFoundError)),
          ),
        };
      },
    }),
    defineRoute({
      method: 'PUT',
      path: ONE_PATH,
      role: 'admin',
      tag: 'notifications',
      summary: 'Replace a notification route',
      description: `What is left out is as by default, but for "position". ${ORDER}`,
      params: routeParams,
      body: wantedRoute,
      answers: { 200: { description: 'The route as it is now.', schema: routeAnswer } },
      async handle({ principal, params, body: { position: place, ...definition } }) {
        const id = uuidOf(params.routeId, NotificationRouteNotFoundError);
        const wanted = { definition, position: place };
        const replaced = await routes.replace(authorOf(principal), id, wanted);
        return { status: 200, body: bodyOf(replaced) };
      },
    }),
    defineRoute({
      method: 'DELETE',
      path: ONE_PATH,
      role: 'admin',
      tag: 'notifications',
      summary: 'Delete a notification route',
      params: routeParams,
      answers: { 204: { description: 'Gone.', schema: null } },
      async handle({ principal, params: { routeId } }) {
        await routes.remove(authorOf(principal), uuidOf(routeId, NotificationRouteNotFoundError));
        return { status: 204 };
      },
    }),
  ];
}

function bodyOf(route: NotificationRoute): z.input<typeof routeAnswer> {
  const { routeId, position: place, definition, createdAt, updatedAt } = route;
  return {
    id: routeId,
    ...definition,
    position: place,
    createdAt: createdAt.toISOString(),
    updatedAt: updatedAt.toISOString(),
  };
}

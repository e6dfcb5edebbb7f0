import {
  inOrganization,
  type TenantDatabase,
  type Transaction,
} from '../../drizzle/transaction.ts';
import { makeUuidV7 } from '../../drizzle/uuid-v7.ts';
import {
  NotificationRouteLimitError,
  NotificationRouteNotFoundError,
  ReceiverNotFoundError,
} from '../../rule-errors.ts';
import type { RuleAuthor, WriteAudit } from '../audit.ts';
import { flushAll } from './policy.ts';
import { lockNotifying } from './receivers.ts';
import { loadRoutes, ROUTE_COLUMNS, routeOf } from './route.ts';
import type { Route, RouteDefinition } from './route-definition.ts';

/** What a route is to be. */
export interface WantedRoute {
  readonly definition: RouteDefinition;
  /** Routes are asked from the lowest to the highest; left out: last, or where it was. */
  readonly position?: number | undefined;
}

/**
 * The notification routes of all organizations. Every function asks for the organization and sees no
 * other. Behind each change alerts that are firing are routed anew: who is told of them now and was not
 * before is told, and nobody is told twice by the same route.
 */
export interface NotificationRoutes {
  /** All of them, in the order in which they are asked. */
  list(organizationId: number): Promise<Route[]>;
  /** @throws {NotificationRouteNotFoundError} */
  get(organizationId: number, routeId: string): Promise<Route>;
  /** @throws {ReceiverNotFoundError} of one that it tells. @throws {NotificationRouteLimitError} */
  create(author: RuleAuthor, wanted: WantedRoute): Promise<Route>;
  /** @throws {NotificationRouteNotFoundError} @throws {ReceiverNotFoundError} */
  replace(author: RuleAuthor, routeId: string, wanted: WantedRoute): Promise<Route>;
  /** @throws {NotificationRouteNotFoundError} */
  remove(author: RuleAuthor, routeId: string): Promise<void>;
}

/** What {@link createNotificationRoutes} needs. */
export interface NotificationRoutesDeps {
  readonly database: TenantDatabase;
  readonly writeAudit: WriteAudit;
  readonly limits: { readonly routesMax: number };
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Alerts are to be routed anew. */
  readonly wake: () => void;
}

const POSITION_STEP = 10;

/** Every function throws {@link StoreUnavailableError} when the database is away. */
export function createNotificationRoutes(deps: NotificationRoutesDeps): NotificationRoutes {
  const { database, wake, now } = deps;
  const change = async <T>(
    author: RuleAuthor,
    work: (transaction: Transaction) => Promise<T>,
  ): Promise<T> => {
    const changed = await inOrganization(database, author.organizationId, async (transaction) => {
      await lockNotifying(transaction, author.organizationId);
      const done = await work(transaction);
      await routeAnew(transaction, author.organizationId, now());
      return done;
    });
    wake();
    return changed;
  };
  return {
    list: (organizationId) =>
      inOrganization(database, organizationId, (transaction) =>
        loadRoutes(transaction, organizationId),
      ),
    get: (organizationId, routeId) =>
      inOrganization(database, organizationId, (transaction) =>
        getRoute(transaction, organizationId, routeId),
      ),
    create: (author, wanted) =>
      change(author, (transaction) => insertRoute(transaction, deps, author, wanted)),
    replace: (author, routeId, wanted) =>
      change(author, (transaction) => updateRoute(transaction, deps, { author, routeId, wanted })),
    remove: (author, routeId) =>
      change(author, (transaction) => deleteRoute(transaction, deps, author, routeId)),
  };
}

async function getRoute(
  { client }: Transaction,
  organizationId: number,
  routeId: string,
): Promise<Route> {
  const { rows } = await client.query<Parameters<typeof routeOf>[0]>(
    `SELECT ${ROUTE_COLUMNS} FROM notification_route WHERE organization_id = $1 AND route_id = $2`,
    [organizationId, routeId],
  );
  const [row] = rows;
  if (row === undefined) throw new NotificationRouteNotFoundError(routeId);
  return routeOf(row);
}

async function assertReceivers(
  { client }: Transaction,
  organizationId: number,
  { receivers }: RouteDefinition,
): Promise<void> {
  const { rows } = await client.query<{ receiver_id: string }>(
    `SELECT receiver_id FROM receiver
     WHERE organization_id = $1 AND receiver_id = ANY($2::uuid[])`,
    [organizationId, receivers],
  );
  const found = new Set(rows.map((row) => row.receiver_id));
  const missing = receivers.find((receiverId) => !found.has(receiverId.toLowerCase()));
  if (missing !== undefined) throw new ReceiverNotFoundError(missing);
}

async function insertRoute(
  transaction: Transaction,
  { writeAudit, limits }: NotificationRoutesDeps,
  { organizationId, actor }: RuleAuthor,
  { definition, position }: WantedRoute,
): Promise<Route> {
  const { client, orm } = transaction;
  await assertReceivers(transaction, organizationId, definition);
  const { rows: counted } = await client.query<{ routes: number; last: number | null }>(
    `SELECT count(*)::int4 AS routes, max(position) AS last FROM notification_route
     WHERE organization_id = $1`,
    [organizationId],
  );
  if ((counted[0]?.routes ?? 0) >= limits.routesMax) {
    throw new NotificationRouteLimitError(limits.routesMax);
  }
  const place = position ?? (counted[0]?.last ?? 0) + POSITION_STEP;
  const routeId = makeUuidV7(Date.now());
  await client.query(
    `INSERT INTO notification_route (route_id, organization_id, position, definition)
     VALUES ($1, $2, $3, $4)`,
    [routeId, organizationId, place, JSON.stringify(definition)],
  );
  await writeAudit(orm, {
    organizationId,
    actor,
    action: 'notification_route.create',
    subject: `notification-route/${routeId}`,
    change: { position: place, definition },
  });
  return getRoute(transaction, organizationId, routeId);
}

async function updateRoute(
  transaction: Transaction,
  { writeAudit }: NotificationRoutesDeps,
  {
    author: { organizationId, actor },
    routeId,
    wanted: { definition, position },
  }: { readonly author: RuleAuthor; readonly routeId: string; readonly wanted: WantedRoute },
): Promise<Route> {
  const { client, orm } = transaction;
  const before = await getRoute(transaction, organizationId, routeId);
  await assertReceivers(transaction, organizationId, definition);
  const place = position ?? before.position;
  await client.query(
    `UPDATE notification_route SET position = $3, definition = $4, updated_at = now()
     WHERE organization_id = $1 AND route_id = $2`,
    [organizationId, routeId, place, JSON.stringify(definition)],
  );
  await writeAudit(orm, {
    organizationId,
    actor,
    action: 'notification_route.update',
    subject: `notification-route/${routeId}`,
    change: { position: place, definition },
  });
  return getRoute(transaction, organizationId, routeId);
}

async function deleteRoute(
  transaction: Transaction,
  { writeAudit }: NotificationRoutesDeps,
  { organizationId, actor }: RuleAuthor,
  routeId: string,
): Promise<void> {
  const { client, orm } = transaction;
  const { definition } = await getRoute(transaction, organizationId, routeId);
  await client.query(
    'DELETE FROM notification_route WHERE organization_id = $1 AND route_id = $2',
    [organizationId, routeId],
  );
  await writeAudit(orm, {
    organizationId,
    actor,
    action: 'notification_route.delete',
    subject: `notification-route/${routeId}`,
    change: { name: definition.name },
  });
}

/**
 * Puts the steps in which alerts that are firing began to fire into the outbox again, and looks at all
 * groups: those whose route is gone end.
 */
async function routeAnew(
  transaction: Transaction,
  organizationId: number,
  nowMs: number,
): Promise<void> {
  const { client } = transaction;
  await client.query(
    `UPDATE alert_transition AS step SET notified_at = NULL
     FROM alert
     WHERE alert.organization_id = $1 AND alert.state = 'firing'
       AND NOT alert.is_shadow AND NOT alert.is_historical
       AND step.alert_id = alert.alert_id AND step.organization_id = $1
       AND step.to_state = 'firing' AND step.from_state <> 'firing'
       AND step.notified_at IS NOT NULL`,
    [organizationId],
  );
  await flushAll(transaction, organizationId, nowMs);
}

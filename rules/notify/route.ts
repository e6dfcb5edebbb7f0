import { createHash } from 'node:crypto';
import type { Transaction } from '../../drizzle/transaction.ts';
import { matchesAll, type Labelled } from './matchers.ts';
import { routeSchema, type Route, type RouteDefinition } from './route-definition.ts';
import { queryTogether } from './together.ts';

/**
 * The routes of an alert, in their order: those that match, up to and with the first one that does not
 * `continue`. None: nobody is told.
 */
export function routesFor(routes: readonly Route[], subject: Labelled): Route[] {
  const matching: Route[] = [];
  for (const route of routes) {
    if (!matchesAll(route.definition.matchers, subject)) continue;
    matching.push(route);
    if (!route.definition.continue) break;
  }
  return matching;
}

/** The labels by which a route puts an alert into a group; one that the alert has not is empty. */
export function groupLabelsOf(
  { groupBy }: Pick<RouteDefinition, 'groupBy'>,
  { labels }: Labelled,
): Record<string, string> {
  return Object.fromEntries(
    groupBy
      .toSorted()
      .map((label) => [label, Object.hasOwn(labels, label) ? (labels[label] ?? '') : '']),
  );
}

/** A short text that is the same for equal labels of a route, whatever their length. */
export function groupKeyOf(routeId: string, groupLabels: Readonly<Record<string, string>>): string {
  const text = JSON.stringify([routeId, ...Object.entries(groupLabels)]);
  return createHash('sha256').update(text).digest('base64url').slice(0, 22);
}

interface RouteRow {
  route_id: string;
  position: number;
  definition: unknown;
  created_at: Date;
  updated_at: Date;
}

/** Columns of a route, for {@link routeOf}. */
export const ROUTE_COLUMNS = 'route_id, position, definition, created_at, updated_at';

/** The route of a row. */
export function routeOf(row: RouteRow): Route {
  return {
    routeId: row.route_id,
    position: row.position,
    definition: routeSchema.parse(row.definition),
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

/**
 * All routes of an organization, in the order in which they are asked. One that a newer version has
 * written, and this one cannot read, is left out.
 */
export async function loadRoutes(
  { client }: Pick<Transaction, 'client'>,
  organizationId: number,
): Promise<Route[]> {
  const [rows = []] = await queryTogether(client, [routesStatement(organizationId)]);
  return routesOf(rows);
}

/** A statement, of which {@link routesOf} reads the rows. */
export function routesStatement(organizationId: number): string {
  return `SELECT ${ROUTE_COLUMNS} FROM notification_route WHERE organization_id = ${organizationId}
    ORDER BY position, route_id`;
}

/** The routes of the rows of {@link routesStatement}. */
export function routesOf(rows: readonly object[]): Route[] {
  return (rows as RouteRow[])
    .filter(({ definition }) => routeSchema.safeParse(definition).success)
    .map(routeOf);
}

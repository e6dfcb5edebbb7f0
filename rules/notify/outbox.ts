import { guardStore } from '../../drizzle/sqlstate.ts';
import { inTransaction, type TenantDatabase, type Transaction } from '../../drizzle/transaction.ts';
import { StoreUnavailableError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { loadAlerts, type AlertView } from './alert-view.ts';
import type { Suppressed } from './decision.ts';
import { addChanges, type GroupChange, type Grouped } from './group.ts';
import type { NotifyLimits } from './limits.ts';
import type { NotifyMetrics } from './metrics.ts';
import { NOBODY, suppressionRow, writeNotifications, type NotificationRow } from './record.ts';
import { groupKeyOf, groupLabelsOf, routesFor, routesOf, routesStatement } from './route.ts';
import type { Route } from './route-definition.ts';
import { queryTogether } from './together.ts';
import {
  groupNameOf,
  keepGroups,
  lockGroups,
  type GroupTarget,
  type KeptGroup,
} from './group-store.ts';

/** What {@link takeOutbox} needs. */
export interface OutboxParts {
  readonly database: Pick<TenantDatabase, 'pool'>;
  readonly limits: NotifyLimits;
  readonly metrics: NotifyMetrics;
  readonly log: Logger;
}

/** Transitions of one transaction. */
const PAGE_ROWS = 500;
/** Oldest transitions among which organizations are looked for. */
const LOOK_ROWS = 2000;

/**
 * Takes steps of alerts that nobody has looked at, oldest first, a page of each organization: finds the
 * routes of each alert and puts it into their groups, in the transaction that marks the steps as seen. What
 * a killed program had not committed is taken again, and only that. Two programs may call it at once.
 * @returns how many steps were taken. @throws {StoreUnavailableError}
 */
export async function takeOutbox(
  parts: OutboxParts,
  nowMs: number,
  rowsMax: number = PAGE_ROWS,
): Promise<number> {
  const { pool } = parts.database;
  const { rows } = await guardStore(
    pool.query<{ organization_id: number }>(
      `SELECT DISTINCT organization_id FROM (
         SELECT organization_id FROM alert_transition WHERE notified_at IS NULL
         ORDER BY recorded_at, alert_id, sequence LIMIT $1
       ) AS oldest`,
      [LOOK_ROWS],
    ),
  );
  let taken = 0;
  for (const { organization_id: organizationId } of rows) {
    const done = await takeOrSkip(parts, { organizationId, nowMs, rowsMax });
    for (const { reason, alertIds } of done.suppressed) {
      parts.metrics.countSuppressed(reason, alertIds.length);
    }
    taken += done.steps;
  }
  return taken;
}

/**
 * Takes a page. When that fails for another reason than the database's absence, steps are taken one by
 * one, and one that fails alone is left out: it must not hold up all that come after it.
 */
async function takeOrSkip(parts: OutboxParts, page: Page): Promise<Taken> {
  const { pool } = parts.database;
  try {
    return await inTransaction(pool, (transaction) => takePage(transaction, parts, page));
  } catch (err) {
    if (err instanceof StoreUnavailableError) throw err;
    if (page.rowsMax > 1) return takeOrSkip(parts, { ...page, rowsMax: 1 });
    const { organizationId } = page;
    parts.log.error({ err, orgId: organizationId }, 'step of an alert not notified');
    const steps = await inTransaction(pool, async (transaction) => {
      const skipped = await claimSteps(transaction, page);
      await markSeen(transaction, page, skipped.steps);
      return skipped.steps;
    });
    const alertIds = steps.map(({ alertId }) => alertId);
    return { steps: steps.length, suppressed: [{ reason: 'failed', by: null, alertIds }] };
  }
}

interface Page {
  readonly organizationId: number;
  readonly nowMs: number;
  readonly rowsMax: number;
}

interface Step {
  readonly alertId: string;
  readonly sequence: number;
  readonly atMs: number;
  /** Whether anybody could be told of it: not of steps that only a rule sees, as those of pending alerts. */
  readonly isTold: boolean;
}

interface Taken {
  readonly steps: number;
  readonly suppressed: readonly Suppressed[];
}

/** Changes of one group. */
interface Target extends GroupTarget {
  readonly route: Route;
  readonly changes: GroupChange[];
}

async function takePage(transaction: Transaction, parts: OutboxParts, page: Page): Promise<Taken> {
  const { organizationId, nowMs } = page;
  const { steps, routes } = await claimSteps(transaction, page);
  const told = steps.filter(({ isTold }) => isTold);
  const alertIds = [...new Set(told.map(({ alertId }) => alertId))];
  const alerts = await loadAlerts(transaction, organizationId, alertIds);
  const { targets, suppressed } = routeSteps(told, alerts, routes);
  await writeNotifications(
    transaction,
    suppressed
      .filter(({ reason }) => reason !== 'shadow')
      .map((each) => suppressionRow(each, toNobody(organizationId), nowMs)),
  );
  const grouped = await groupAll(transaction, parts, page, targets);
  await markSeen(transaction, page, steps);
  return { steps: steps.length, suppressed: [...suppressed, ...grouped] };
}

function toNobody(organizationId: number) {
  return { organizationId, receiverId: NOBODY, groupKey: '' };
}

/** Steps that nobody else looks at, and the routes as they are once those are held. */
async function claimSteps(
  { client }: Transaction,
  { organizationId, rowsMax }: Page,
): Promise<{ steps: Step[]; routes: Route[] }> {
  const [claimed = [], routes = []] = await queryTogether(client, [
    `SELECT alert_id, sequence, at,
            CASE WHEN from_state = 'firing' AND to_state = 'firing'
              THEN reason IN ('severity_raised', 'severity_lowered')
              ELSE from_state = 'firing' OR to_state = 'firing' END AS is_told
     FROM alert_transition WHERE organization_id = ${organizationId} AND notified_at IS NULL
     ORDER BY recorded_at, alert_id, sequence LIMIT ${rowsMax} FOR UPDATE SKIP LOCKED`,
    routesStatement(organizationId),
  ]);
  const steps = (claimed as StepRow[]).map((row) => ({
    alertId: row.alert_id,
    sequence: row.sequence,
    atMs: row.at.getTime(),
    isTold: row.is_told,
  }));
  return { steps, routes: routesOf(routes) };
}

interface StepRow {
  alert_id: string;
  sequence: number;
  at: Date;
  is_told: boolean;
}

async function markSeen(
  { client }: Transaction,
  { organizationId, nowMs }: Page,
  steps: readonly Step[],
): Promise<void> {
  if (steps.length === 0) return;
  await client.query(
    `UPDATE alert_transition SET notified_at = $4
     FROM unnest($2::uuid[], $3::int4[]) AS seen (alert_id, sequence)
     WHERE alert_transition.organization_id = $1
       AND alert_transition.alert_id = seen.alert_id AND alert_transition.sequence = seen.sequence`,
    [
      organizationId,
      steps.map(({ alertId }) => alertId),
      steps.map(({ sequence }) => sequence),
      new Date(nowMs),
    ],
  );
}

/** Finds the groups of each step; what has none is suppressed. */
function routeSteps(
  steps: readonly Step[],
  alerts: ReadonlyMap<string, AlertView>,
  routes: readonly Route[],
): { targets: Map<string, Target>; suppressed: Suppressed[] } {
  const targets = new Map<string, Target>();
  const unrouted = new Set<string>();
  const shadows = new Set<string>();
  for (const { alertId, sequence, atMs } of steps) {
    const alert = alerts.get(alertId);
    if (alert === undefined) continue;
    if (alert.isUntold) {
      shadows.add(alertId);
      continue;
    }
    const matching = routesFor(routes, alert);
    if (matching.length === 0) unrouted.add(alertId);
    const change = { alertId, sequence, atMs, flapKey: flapKeyOf(alert) };
    for (const route of matching) addTargets(targets, route, groupOf(route, alert), change);
  }
  const suppressed: Suppressed[] = [];
  if (unrouted.size > 0) suppressed.push({ reason: 'no_route', by: null, alertIds: [...unrouted] });
  if (shadows.size > 0) suppressed.push({ reason: 'shadow', by: null, alertIds: [...shadows] });
  return { targets, suppressed };
}

function groupOf({ routeId, definition }: Route, alert: AlertView): string {
  return groupKeyOf(routeId, groupLabelsOf(definition, alert));
}

function flapKeyOf({ ruleId, deviceId, groupKey }: AlertView): string {
  return `${ruleId}/${deviceId}/${groupKey}`;
}

function addTargets(
  targets: Map<string, Target>,
  route: Route,
  groupKey: string,
  change: GroupChange,
): void {
  for (const receiverId of route.definition.receivers) {
    const { routeId } = route;
    const key = groupNameOf({ routeId, receiverId, groupKey });
    const target = targets.get(key) ?? { route, routeId, receiverId, groupKey, changes: [] };
    target.changes.push(change);
    targets.set(key, target);
  }
}

/** Puts the changes into their groups; @returns what found no room or has ended already. */
async function groupAll(
  transaction: Transaction,
  { limits }: OutboxParts,
  { organizationId, nowMs }: Page,
  targets: ReadonlyMap<string, Target>,
): Promise<Suppressed[]> {
  if (targets.size === 0) return [];
  const all: Suppressed[] = [];
  const rows: NotificationRow[] = [];
  const kept: KeptGroup[] = [];
  const stored = await lockGroups(transaction, organizationId, targets, nowMs);
  for (const [key, { route, receiverId, groupKey, changes }] of targets) {
    const group = stored.get(key);
    if (group === undefined) throw new Error('a group that was locked is gone');
    const grouped = addChanges(group.state, changes, route.definition, { nowMs, limits });
    const suppressed = suppressedOf(grouped);
    const to = { organizationId, receiverId, groupKey };
    rows.push(...suppressed.map((each) => suppressionRow(each, to, nowMs)));
    all.push(...suppressed);
    const flushAtMs = Math.min(group.flushAtMs ?? Infinity, grouped.flushAtMs ?? Infinity);
    const { alerts, flaps } = grouped.state;
    kept.push({ groupId: group.groupId, members: { alerts, flaps }, flushAt: new Date(flushAtMs) });
  }
  await writeNotifications(transaction, rows);
  await keepGroups(transaction, organizationId, kept);
  return all;
}

function suppressedOf({ ended, left }: Grouped): Suppressed[] {
  const suppressed: Suppressed[] = [];
  if (ended.length > 0) {
    suppressed.push({ reason: 'ended_before_told', by: null, alertIds: [...ended] });
  }
  if (left.length > 0) suppressed.push({ reason: 'group_full', by: null, alertIds: [...left] });
  return suppressed;
}

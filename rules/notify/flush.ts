import { guardStore } from '../../drizzle/sqlstate.ts';
import { inTransaction, type TenantDatabase, type Transaction } from '../../drizzle/transaction.ts';
import { StoreUnavailableError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { loadAlerts, type AlertView } from './alert-view.ts';
import { decide, type Decision, type Hold, type Suppressed } from './decision.ts';
import {
  claimGroups,
  endGroup,
  keepFlushed,
  type ClaimedGroup,
  type DueGroups,
} from './group-store.ts';
import { inhibitorOf, loadInhibitors, type Inhibitors } from './inhibit.ts';
import type { NotifyLimits } from './limits.ts';
import type { NotifyMetrics } from './metrics.ts';
import { muteOf, mutesOf, muteStatements, type MuteContext } from './mute.ts';
import { addToDigest, hourCounts, hourStatement } from './rate-cap.ts';
import { messageRow, suppressionRow, writeNotifications, type Addressee } from './record.ts';
import { groupLabelsOf, routesOf, routesStatement } from './route.ts';
import { queryTogether, uuidsOf } from './together.ts';
import type { Route } from './route-definition.ts';

/** What {@link flushDue} needs. */
export interface FlushParts {
  readonly database: Pick<TenantDatabase, 'pool'>;
  readonly limits: NotifyLimits;
  readonly metrics: NotifyMetrics;
  readonly log: Logger;
}

/** Groups that one call looks at. */
const GROUPS_MAX = 50;
/** Of a group that cannot be decided on. */
const PUT_OFF_MS = 60_000;

/**
 * Decides on groups that are due: what their receivers are told, and what is held back. Each
 * organization's in one transaction, so that a message is decided on once, whoever is killed. Two programs
 * may call it at once. @returns how many groups were looked at. @throws {StoreUnavailableError}
 */
export async function flushDue(parts: FlushParts, nowMs: number): Promise<number> {
  const { pool } = parts.database;
  const { rows } = await guardStore(
    pool.query<{ group_id: string; organization_id: number }>(
      `SELECT group_id, organization_id FROM notification_group WHERE flush_at <= $1
       ORDER BY flush_at LIMIT $2`,
      [new Date(nowMs), GROUPS_MAX],
    ),
  );
  const byOrganization = new Map<number, string[]>();
  for (const { group_id: groupId, organization_id: organizationId } of rows) {
    const groups = byOrganization.get(organizationId);
    if (groups === undefined) byOrganization.set(organizationId, [groupId]);
    else groups.push(groupId);
  }
  let flushed = 0;
  for (const [organizationId, groupIds] of byOrganization) {
    const done = await flushOrPutOff(parts, { organizationId, groupIds, nowMs });
    for (const { reason, alertIds } of done.suppressed) {
      parts.metrics.countSuppressed(reason, alertIds.length);
    }
    flushed += done.groups;
  }
  return flushed;
}

/**
 * Flushes groups. When that fails for another reason than the database's absence, one by one, and one that
 * fails alone is put off: it must not hold up the others.
 */
async function flushOrPutOff(parts: FlushParts, due: DueGroups): Promise<Flushed> {
  const { pool } = parts.database;
  try {
    return await inTransaction(pool, (transaction) => flushGroups(transaction, parts, due));
  } catch (err) {
    if (err instanceof StoreUnavailableError) throw err;
    const { organizationId, groupIds, nowMs } = due;
    if (groupIds.length > 1) return flushOneByOne(parts, due);
    parts.log.error({ err, orgId: organizationId, groupId: groupIds[0] }, 'group not notified');
    await guardStore(
      pool.query(
        `UPDATE notification_group SET flush_at = $3
         WHERE organization_id = $1 AND group_id = ANY($2::uuid[])`,
        [organizationId, groupIds, new Date(nowMs + PUT_OFF_MS)],
      ),
    );
    return { groups: 0, suppressed: [] };
  }
}

async function flushOneByOne(parts: FlushParts, due: DueGroups): Promise<Flushed> {
  const all: Flushed[] = [];
  for (const groupId of due.groupIds) {
    all.push(await flushOrPutOff(parts, { ...due, groupIds: [groupId] }));
  }
  return {
    groups: all.reduce((sum, { groups }) => sum + groups, 0),
    suppressed: all.flatMap(({ suppressed }) => suppressed),
  };
}

/** When the next group is due, in ms; null when none waits. @throws {StoreUnavailableError} */
export async function nextFlushMs({ pool }: Pick<TenantDatabase, 'pool'>): Promise<number | null> {
  const { rows } = await guardStore(
    pool.query<{ at: Date | null }>('SELECT min(flush_at) AS at FROM notification_group'),
  );
  return rows[0]?.at?.getTime() ?? null;
}

/** What decides on all groups of an organization. */
interface FlushContext {
  readonly organizationId: number;
  readonly organization: string;
  readonly routes: ReadonlyMap<string, Route>;
  readonly alerts: ReadonlyMap<string, AlertView>;
  readonly mutes: MuteContext;
  readonly inhibitors: Inhibitors;
  /** Messages of this hour, by receiver; counted on while messages are made. */
  readonly hour: Map<string, number>;
  readonly nowMs: number;
}

interface Flushed {
  readonly groups: number;
  readonly suppressed: readonly Suppressed[];
}

async function flushGroups(
  transaction: Transaction,
  parts: FlushParts,
  due: DueGroups,
): Promise<Flushed> {
  const groups = await claimGroups(transaction, due);
  if (groups.length === 0) return { groups: 0, suppressed: [] };
  const context = await loadContext(transaction, due, groups);
  const suppressed: Suppressed[] = [];
  for (const group of groups) {
    suppressed.push(...(await flushGroup(transaction, parts, { context, group })));
  }
  return { groups: groups.length, suppressed };
}

async function loadContext(
  transaction: Transaction,
  { organizationId, nowMs }: DueGroups,
  groups: readonly ClaimedGroup[],
): Promise<FlushContext> {
  const receiverIds = [...new Set(groups.map(({ receiverId }) => receiverId))];
  const alertIds = new Set(groups.flatMap(({ state }) => Object.keys(state.alerts)));
  const alerts = await loadAlerts(transaction, organizationId, [...alertIds]);
  const inhibitors = await loadInhibitors(transaction, organizationId, alerts.values());
  // Receivers are locked so that two programs count the messages of one after the other; in one order,
  // or they would wait for each other.
  const [, slugs = [], routes = [], hour = [], ...mutes] = await queryTogether(transaction.client, [
    `SELECT FROM receiver WHERE organization_id = ${organizationId}
       AND receiver_id = ANY(${uuidsOf(receiverIds)}) ORDER BY receiver_id FOR NO KEY UPDATE`,
    `SELECT slug FROM organization WHERE organization_id = ${organizationId}`,
    routesStatement(organizationId),
    hourStatement(organizationId, receiverIds, nowMs),
    ...muteStatements(organizationId, nowMs),
  ]);
  return {
    organizationId,
    organization: String(slugs[0]?.['slug'] ?? ''),
    routes: new Map(routesOf(routes).map((route) => [route.routeId, route])),
    alerts,
    mutes: mutesOf(mutes, nowMs),
    inhibitors,
    hour: hourCounts(hour),
    nowMs,
  };
}

interface OneGroup {
  readonly context: FlushContext;
  readonly group: ClaimedGroup;
}

async function flushGroup(
  transaction: Transaction,
  parts: FlushParts,
  one: OneGroup,
): Promise<readonly Suppressed[]> {
  const { context, group } = one;
  const { nowMs, organizationId } = context;
  const route = context.routes.get(group.routeId);
  const { receiverId, groupKey } = group;
  if (route === undefined || !route.definition.receivers.includes(receiverId)) {
    return dropGroup(transaction, one);
  }
  const decision = decide({
    state: group.state,
    route: route.definition,
    alerts: context.alerts,
    holdOf: (alert) => holdOf(alert, route, context),
    nowMs,
    limits: parts.limits,
  });
  const capped = await tell(transaction, parts, { ...one, route, decision });
  const suppressed = [...decision.suppressed, ...capped];
  const to = { organizationId, receiverId, groupKey };
  await writeNotifications(
    transaction,
    suppressed.map((each) => suppressionRow(each, to, nowMs)),
  );
  const { state, flushAtMs } = decision;
  if (flushAtMs === null) await endGroup(transaction, organizationId, group.groupId);
  else await keepFlushed(transaction, organizationId, group.groupId, { state, flushAtMs });
  return suppressed;
}

function holdOf(alert: AlertView, route: Route, context: FlushContext): Hold | null {
  return (
    muteOf(alert, route.definition.quietHours, context.mutes) ??
    inhibitorOf(alert, context.inhibitors)
  );
}

/** Writes what is told, up to the cap of the receiver; @returns what was beyond it. */
async function tell(
  transaction: Transaction,
  { limits }: FlushParts,
  {
    context,
    group,
    route,
    decision,
  }: OneGroup & { readonly route: Route; readonly decision: Decision },
): Promise<Suppressed[]> {
  const { nowMs, hour, organization, organizationId } = context;
  const alertsMax = limits.messageAlertsMax;
  const capped: Suppressed[] = [];
  for (const told of decision.tells) {
    const [first] = told.changed;
    if (first === undefined) continue;
    const to: Addressee = {
      organizationId,
      organization,
      receiverId: group.receiverId,
      groupKey: group.groupKey,
      groupLabels: groupLabelsOf(route.definition, first),
    };
    const row = messageRow(told, to, { nowMs, alertsMax });
    const sent = hour.get(group.receiverId) ?? 0;
    if (sent < limits.messagesPerHour) {
      hour.set(group.receiverId, sent + 1);
      await writeNotifications(transaction, [row]);
      continue;
    }
    await addToDigest(transaction, row, { changes: told.changes, alertsMax, nowMs });
    capped.push({ reason: 'rate_cap', by: null, alertIds: [...row.alertIds] });
  }
  return capped;
}

/** Its route is gone, or tells somebody else now: the alerts are in another group, if in any. */
async function dropGroup(
  transaction: Transaction,
  { context: { organizationId, nowMs }, group }: OneGroup,
): Promise<Suppressed[]> {
  const { groupId, receiverId, groupKey, state } = group;
  const alertIds = Object.keys(state.alerts);
  await endGroup(transaction, organizationId, groupId);
  if (alertIds.length === 0) return [];
  const suppressed: Suppressed = { reason: 'route_changed', by: null, alertIds };
  const to = { organizationId, receiverId, groupKey };
  await writeNotifications(transaction, [suppressionRow(suppressed, to, nowMs)]);
  return [suppressed];
}

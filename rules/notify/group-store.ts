import type { Transaction } from '../../drizzle/transaction.ts';
import { makeUuidV7 } from '../../drizzle/uuid-v7.ts';
import { groupStateOf } from './group.ts';
import type { GroupState } from './group-state.ts';

/** Names a group. */
export interface GroupTarget {
  readonly routeId: string;
  readonly receiverId: string;
  readonly groupKey: string;
}

/** The key of a group in a map. */
export function groupNameOf({ routeId, receiverId, groupKey }: GroupTarget): string {
  return `${routeId}/${receiverId}/${groupKey}`;
}

/** A group as it was. */
export interface StoredGroup {
  readonly groupId: string;
  readonly state: GroupState;
  readonly flushAtMs: number | null;
}

/** A group behind changes. */
export interface KeptGroup {
  readonly groupId: string;
  readonly members: Pick<GroupState, 'alerts' | 'flaps'>;
  readonly flushAt: Date;
}

/** Writes groups behind changes. */
export async function keepGroups(
  { client }: Transaction,
  organizationId: number,
  groups: readonly KeptGroup[],
): Promise<void> {
  await client.query(
    `UPDATE notification_group SET members = kept.members, flush_at = kept.flush_at
     FROM unnest($2::uuid[], $3::jsonb[], $4::timestamptz[]) AS kept (group_id, members, flush_at)
     WHERE notification_group.organization_id = $1 AND notification_group.group_id = kept.group_id`,
    [
      organizationId,
      groups.map(({ groupId }) => groupId),
      groups.map(({ members }) => JSON.stringify(members)),
      groups.map(({ flushAt }) => flushAt),
    ],
  );
}

/**
 * Makes groups that are missing, and locks all, in the order of their keys, by an update of nothing.
 * @param targets by their keys. @returns the groups by the same keys.
 */
export async function lockGroups(
  { client }: Transaction,
  organizationId: number,
  targets: ReadonlyMap<string, GroupTarget>,
  nowMs: number,
): Promise<Map<string, StoredGroup>> {
  const wanted = [...targets.entries()]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([, target]) => target);
  const { rows } = await client.query<GroupRow>(
    `INSERT INTO notification_group AS stored (organization_id, group_id, route_id, receiver_id,
       group_key, members, told_members)
     SELECT $1, group_id, route_id, receiver_id, group_key, '{}', '{}'
     FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::text[])
       WITH ORDINALITY AS wanted (group_id, route_id, receiver_id, group_key, place)
     ORDER BY place
     ON CONFLICT (route_id, receiver_id, group_key) DO UPDATE SET group_key = stored.group_key
     RETURNING group_id, route_id, receiver_id, group_key, members, told_members, told_at, flush_at`,
    [
      organizationId,
      wanted.map(() => makeUuidV7(nowMs)),
      wanted.map(({ routeId }) => routeId),
      wanted.map(({ receiverId }) => receiverId),
      wanted.map(({ groupKey }) => groupKey),
    ],
  );
  const groups = rows.map((row): [string, StoredGroup] => [
    groupNameOf({
      routeId: row.route_id,
      receiverId: row.receiver_id,
      groupKey: row.group_key,
    }),
    {
      groupId: row.group_id,
      state: groupStateOf(row.members, row.told_members, row.told_at),
      flushAtMs: row.flush_at?.getTime() ?? null,
    },
  ]);
  return new Map(groups);
}

interface GroupRow {
  group_id: string;
  route_id: string;
  receiver_id: string;
  group_key: string;
  members: unknown;
  told_members: unknown;
  told_at: Date | null;
  flush_at: Date | null;
}

/** Groups of one organization that are due. */
export interface DueGroups {
  readonly organizationId: number;
  readonly groupIds: readonly string[];
  readonly nowMs: number;
}

/** A group that is looked at, and held until the transaction ends. */
export interface ClaimedGroup extends GroupTarget {
  readonly groupId: string;
  readonly state: GroupState;
}

/** Takes groups that are due; those that another program looks at are left to it. */
export async function claimGroups(
  { client }: Transaction,
  { organizationId, groupIds, nowMs }: DueGroups,
): Promise<ClaimedGroup[]> {
  const { rows } = await client.query<{
    group_id: string;
    route_id: string;
    receiver_id: string;
    group_key: string;
    members: unknown;
    told_members: unknown;
    told_at: Date | null;
  }>(
    `SELECT group_id, route_id, receiver_id, group_key, members, told_members, told_at
     FROM notification_group
     WHERE organization_id = $1 AND group_id = ANY($2::uuid[]) AND flush_at <= $3
     ORDER BY flush_at, group_id FOR UPDATE SKIP LOCKED`,
    [organizationId, groupIds, new Date(nowMs)],
  );
  return rows.map((row) => ({
    groupId: row.group_id,
    routeId: row.route_id,
    receiverId: row.receiver_id,
    groupKey: row.group_key,
    state: groupStateOf(row.members, row.told_members, row.told_at),
  }));
}

/** Writes a group behind its flush. */
export async function keepFlushed(
  { client }: Transaction,
  organizationId: number,
  groupId: string,
  { state, flushAtMs }: { readonly state: GroupState; readonly flushAtMs: number },
): Promise<void> {
  const { alerts, flaps, told, toldMs } = state;
  await client.query(
    `UPDATE notification_group SET members = $3, told_members = $4, told_at = $5, flush_at = $6
     WHERE organization_id = $1 AND group_id = $2`,
    [
      organizationId,
      groupId,
      JSON.stringify({ alerts, flaps }),
      JSON.stringify(told),
      toldMs === null ? null : new Date(toldMs),
      new Date(flushAtMs),
    ],
  );
}

/** Deletes a group. */
export async function endGroup(
  { client }: Transaction,
  organizationId: number,
  groupId: string,
): Promise<void> {
  await client.query(
    'DELETE FROM notification_group WHERE organization_id = $1 AND group_id = $2',
    [organizationId, groupId],
  );
}

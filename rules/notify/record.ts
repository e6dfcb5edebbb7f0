import type { Transaction } from '../../drizzle/transaction.ts';
import { makeUuidV7 } from '../../drizzle/uuid-v7.ts';
import { toNotified } from './alert-view.ts';
import type { Suppressed, Told } from './decision.ts';
import type { NotificationDigest, NotificationMessage } from './message.ts';

/** Of a notification whose receiver nobody is. */
export const NOBODY = '00000000-0000-0000-0000-000000000000';

/** The smallest UUID of version 7 that can be made at a time: rows behind it were made since. */
export function firstIdAt(ms: number): string {
  const hex = Math.floor(ms).toString(16).padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7000-8000-000000000000`;
}

/** Whom a message or a suppression is about. */
export interface Addressee {
  readonly organizationId: number;
  /** Slug. */
  readonly organization: string;
  readonly receiverId: string;
  readonly groupKey: string;
  readonly groupLabels: Readonly<Record<string, string>>;
}

/** A row that is to be written. */
export interface NotificationRow {
  readonly notificationId: string;
  readonly organizationId: number;
  readonly receiverId: string;
  readonly groupKey: string;
  readonly kind: 'alert' | 'digest' | 'test';
  readonly state: 'waiting' | 'sent' | 'dead' | 'suppressed';
  readonly reason: string | null;
  readonly content: unknown;
  readonly createdAt: Date;
  readonly nextAttemptAt: Date | null;
  /** Alerts that it speaks of. */
  readonly alertIds: readonly string[];
}

/** Makes the row of a message that is to be sent at once. At most `alertsMax` alerts are in it. */
export function messageRow(
  told: Told,
  { groupKey, ...to }: Addressee,
  { nowMs, alertsMax }: { readonly nowMs: number; readonly alertsMax: number },
): NotificationRow {
  const worstFirst = (all: Told['changed']) =>
    all.toSorted((a, b) => Number(b.isFiring) - Number(a.isFiring) || b.level - a.level);
  const all = [...worstFirst(told.changed), ...worstFirst(told.others)];
  const createdAt = new Date(nowMs);
  const message: NotificationMessage = {
    notificationId: makeUuidV7(nowMs),
    kind: told.kind,
    organization: to.organization,
    groupKey,
    groupLabels: to.groupLabels,
    state: all.some(({ isFiring }) => isFiring) ? 'firing' : 'resolved',
    alerts: all.slice(0, alertsMax).map(toNotified),
    truncated: Math.max(all.length - alertsMax, 0),
    digest: told.kind === 'digest' ? flappingDigest(told, createdAt) : null,
    createdAt: createdAt.toISOString(),
  };
  return {
    notificationId: message.notificationId,
    organizationId: to.organizationId,
    receiverId: to.receiverId,
    groupKey,
    kind: told.kind,
    state: 'waiting',
    reason: null,
    content: message,
    createdAt,
    nextAttemptAt: createdAt,
    alertIds: told.changed.map(({ alertId }) => alertId),
  };
}

function flappingDigest({ changed, changes }: Told, to: Date): NotificationDigest {
  const from = changed.reduce(
    (first, { activeAt }) => Math.min(first, activeAt.getTime()),
    to.getTime(),
  );
  return {
    reason: 'flapping',
    from: new Date(from).toISOString(),
    to: to.toISOString(),
    suppressed: 0,
    changes,
  };
}

/** Makes the row that says who was not told of which alerts, and why. */
export function suppressionRow(
  { reason, by, alertIds }: Suppressed,
  { organizationId, receiverId, groupKey }: Omit<Addressee, 'groupLabels' | 'organization'>,
  nowMs: number,
): NotificationRow {
  return {
    notificationId: makeUuidV7(nowMs),
    organizationId,
    receiverId,
    groupKey,
    kind: 'alert',
    state: 'suppressed',
    reason,
    content: { by, alerts: alertIds.length },
    createdAt: new Date(nowMs),
    nextAttemptAt: null,
    alertIds,
  };
}

/** Writes notifications and which alerts they speak of; nothing when there are none. */
export async function writeNotifications(
  { client }: Pick<Transaction, 'client'>,
  rows: readonly NotificationRow[],
): Promise<void> {
  if (rows.length === 0) return;
  const links = rows.flatMap(({ notificationId, organizationId, alertIds }) =>
    [...new Set(alertIds)].map((alertId) => ({ alertId, notificationId, organizationId })),
  );
  // In one statement; foreign keys are checked at its end.
  await client.query(
    `WITH linked AS (
       INSERT INTO notification_alert (alert_id, notification_id, organization_id)
       SELECT * FROM unnest($11::uuid[], $12::uuid[], $13::int4[]) ON CONFLICT DO NOTHING
     )
     INSERT INTO notification (notification_id, organization_id, receiver_id, group_key, kind,
       state, reason, content, created_at, next_attempt_at, sent_at)
     SELECT *, CASE WHEN state = 'sent' THEN created_at END
     FROM unnest($1::uuid[], $2::int4[], $3::uuid[], $4::text[], $5::text[], $6::text[],
       $7::text[], $8::jsonb[], $9::timestamptz[], $10::timestamptz[])
       AS made (notification_id, organization_id, receiver_id, group_key, kind, state, reason,
         content, created_at, next_attempt_at)`,
    [
      rows.map((row) => row.notificationId),
      rows.map((row) => row.organizationId),
      rows.map((row) => row.receiverId),
      rows.map((row) => row.groupKey),
      rows.map((row) => row.kind),
      rows.map((row) => row.state),
      rows.map((row) => row.reason),
      rows.map((row) => JSON.stringify(row.content)),
      rows.map((row) => row.createdAt),
      rows.map((row) => row.nextAttemptAt),
      links.map(({ alertId }) => alertId),
      links.map(({ notificationId }) => notificationId),
      links.map(({ organizationId }) => organizationId),
    ],
  );
}

/** Notes that notifications speak of alerts; a second time makes no difference. */
export async function linkAlerts(
  { client }: Pick<Transaction, 'client'>,
  links: readonly {
    readonly alertId: string;
    readonly notificationId: string;
    readonly organizationId: number;
  }[],
): Promise<void> {
  if (links.length === 0) return;
  await client.query(
    `INSERT INTO notification_alert (alert_id, notification_id, organization_id)
     SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int4[]) ON CONFLICT DO NOTHING`,
    [
      links.map(({ alertId }) => alertId),
      links.map(({ notificationId }) => notificationId),
      links.map(({ organizationId }) => organizationId),
    ],
  );
}

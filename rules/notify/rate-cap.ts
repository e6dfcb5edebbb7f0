import type { Transaction } from '../../drizzle/transaction.ts';
import { makeUuidV7 } from '../../drizzle/uuid-v7.ts';
import type { NotificationMessage, NotifiedAlert } from './message.ts';
import { firstIdAt, linkAlerts, writeNotifications, type NotificationRow } from './record.ts';
import { uuidsOf } from './together.ts';

const HOUR_MS = 3_600_000;
/** Group key of digests at the end of an hour; what follows is the hour. */
const DIGEST_GROUP = 'rate_cap/';

/** When the hour that a moment lies in began, in UTC. */
export function hourOf(nowMs: number): number {
  return Math.floor(nowMs / HOUR_MS) * HOUR_MS;
}

/**
 * A statement for how many messages each receiver was sent, or is to be sent, since the hour began; digests
 * of the cap itself and tests are not counted. Who asks holds the rows of the receivers.
 */
export function hourStatement(
  organizationId: number,
  receiverIds: readonly string[],
  nowMs: number,
): string {
  return `SELECT receiver_id, count(*)::int4 AS messages FROM notification
    WHERE organization_id = ${organizationId} AND notification_id >= '${firstIdAt(hourOf(nowMs))}'
      AND receiver_id = ANY(${uuidsOf(receiverIds)})
      AND state <> 'suppressed' AND kind <> 'test' AND NOT starts_with(group_key, '${DIGEST_GROUP}')
    GROUP BY receiver_id`;
}

/** Messages of the hour by receiver, of the rows of {@link hourStatement}. */
export function hourCounts(rows: readonly object[]): Map<string, number> {
  return new Map(
    (rows as { receiver_id: string; messages: number }[]).map((row) => [
      row.receiver_id,
      row.messages,
    ]),
  );
}

interface DigestRow {
  notification_id: string;
  content: NotificationMessage;
}

/**
 * Puts a message that is beyond the cap into the digest that its receiver gets when the hour ends. The
 * digest tells of each alert once, as it was last, and counts what was left out.
 */
export async function addToDigest(
  transaction: Pick<Transaction, 'client'>,
  row: NotificationRow,
  {
    changes,
    alertsMax,
    nowMs,
  }: { readonly changes: number; readonly alertsMax: number; readonly nowMs: number },
): Promise<void> {
  const { client } = transaction;
  const { organizationId, receiverId } = row;
  const endMs = hourOf(nowMs) + HOUR_MS;
  const groupKey = `${DIGEST_GROUP}${new Date(endMs - HOUR_MS).toISOString()}`;
  const message = row.content as NotificationMessage;
  // Behind the end of the hour it may be under way; then the message is in nobody's hands but the next.
  const { rows } = await client.query<DigestRow>(
    `SELECT notification_id, content FROM notification
     WHERE organization_id = $1 AND receiver_id = $2 AND group_key = $3 AND state = 'waiting'
       AND attempts = 0
     FOR UPDATE`,
    [organizationId, receiverId, groupKey],
  );
  const before = rows[0];
  const content = mergeDigest(before?.content ?? emptyDigest(message, groupKey, endMs), message, {
    changes,
    alertsMax,
  });
  if (before === undefined) {
    await writeNotifications(transaction, [
      {
        ...row,
        notificationId: content.notificationId,
        groupKey,
        kind: 'digest',
        content,
        nextAttemptAt: new Date(endMs),
      },
    ]);
    return;
  }
  const { notificationId } = content;
  await client.query(
    'UPDATE notification SET content = $3 WHERE organization_id = $1 AND notification_id = $2',
    [organizationId, notificationId, JSON.stringify(content)],
  );
  await linkAlerts(
    transaction,
    row.alertIds.map((alertId) => ({ alertId, notificationId, organizationId })),
  );
}

function emptyDigest(
  message: NotificationMessage,
  groupKey: string,
  endMs: number,
): NotificationMessage {
  const to = new Date(endMs).toISOString();
  return {
    ...message,
    notificationId: makeUuidV7(Date.parse(message.createdAt)),
    kind: 'digest',
    groupKey,
    groupLabels: {},
    alerts: [],
    truncated: 0,
    digest: { reason: 'rate_cap', from: message.createdAt, to, suppressed: 0, changes: 0 },
  };
}

/** A digest with one more message in it. */
export function mergeDigest(
  digest: NotificationMessage,
  message: NotificationMessage,
  { changes, alertsMax }: { readonly changes: number; readonly alertsMax: number },
): NotificationMessage {
  const byId = new Map<string, NotifiedAlert>();
  for (const alert of [...digest.alerts, ...message.alerts]) byId.set(alert.alertId, alert);
  const alerts = [...byId.values()].slice(0, alertsMax);
  const before = digest.digest;
  return {
    ...digest,
    state: alerts.some(({ state }) => state === 'firing') ? 'firing' : 'resolved',
    alerts,
    truncated: digest.truncated + message.truncated + byId.size - alerts.length,
    digest:
      before === null
        ? null
        : { ...before, suppressed: before.suppressed + 1, changes: before.changes + changes },
  };
}

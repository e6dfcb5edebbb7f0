import { cutPage, type Page } from '../../drizzle/page.ts';
import {
  inOrganization,
  type TenantDatabase,
  type Transaction,
} from '../../drizzle/transaction.ts';
import { makeUuidV7 } from '../../drizzle/uuid-v7.ts';
import {
  NotificationNotDeadError,
  NotificationNotFoundError,
  ReceiverNotFoundError,
} from '../../rule-errors.ts';
import type { RuleAuthor, WriteAudit } from '../audit.ts';
import type { NotificationMessage } from './message.ts';
import { NOBODY, writeNotifications } from './record.ts';

/** `suppressed`: it was decided that somebody is not told; `dead`: it was given up. */
export const NOTIFICATION_STATES = ['waiting', 'sent', 'dead', 'suppressed'] as const;

/** One of {@link NOTIFICATION_STATES}. */
export type NotificationState = (typeof NOTIFICATION_STATES)[number];

/** A notification, or that there was none. */
export interface Notification {
  readonly notificationId: string;
  /** Null: nobody, as no route matched. */
  readonly receiverId: string | null;
  /** Null when the receiver is deleted, or nobody. */
  readonly receiver: string | null;
  readonly kind: string;
  readonly state: NotificationState;
  /** Why nobody was told, or how the last attempt failed. */
  readonly reason: string | null;
  /** Of a suppressed one: the silence, or the rule and device that inhibited. */
  readonly by: string | null;
  readonly attempts: number;
  readonly createdAt: Date;
  readonly nextAttemptAt: Date | null;
  readonly sentAt: Date | null;
}

/** A notification with what it says. */
export interface NotificationDetail extends Notification {
  /** Null of a suppressed one. */
  readonly message: NotificationMessage | null;
  /** Alerts that it speaks of; at most 1000. */
  readonly alertIds: readonly string[];
}

/** A question for notifications. */
export interface NotificationQuery {
  readonly organizationId: number;
  readonly limit: number;
  /** Id of the last one of the page before. */
  readonly after: string | null;
  readonly state: NotificationState | null;
  readonly receiverId: string | null;
  readonly alertId: string | null;
}

/** The notifications of all organizations. Every function asks for the organization and sees no other. */
export interface Notifications {
  /** Newest first. */
  list(query: NotificationQuery): Promise<Page<Notification>>;
  /** @throws {NotificationNotFoundError} */
  get(organizationId: number, notificationId: string): Promise<NotificationDetail>;
  /**
   * Sends what was given up again, as a new notification; the old one stays as it is.
   * @throws {NotificationNotFoundError} @throws {NotificationNotDeadError}
   * @throws {ReceiverNotFoundError} when its receiver was deleted.
   */
  resend(author: RuleAuthor, notificationId: string): Promise<NotificationDetail>;
}

/** What {@link createNotifications} needs. */
export interface NotificationsDeps {
  readonly database: TenantDatabase;
  readonly writeAudit: WriteAudit;
  readonly now: () => number;
  /** A message is to be sent. */
  readonly wake: () => void;
}

const ALERTS_MAX = 1000;

/** Every function throws {@link StoreUnavailableError} when the database is away. */
export function createNotifications(deps: NotificationsDeps): Notifications {
  const { database, wake } = deps;
  return {
    list: (query) =>
      inOrganization(database, query.organizationId, async ({ client }) => {
        const { text, values } = listStatement(query);
        const { rows } = await client.query<NotificationRow>(text, values);
        return cutPage(rows.map(notificationOf), query.limit);
      }),
    get: (organizationId, notificationId) =>
      inOrganization(database, organizationId, (transaction) =>
        getDetail(transaction, organizationId, notificationId),
      ),
    async resend(author, notificationId) {
      const sent = await inOrganization(database, author.organizationId, (transaction) =>
        resendDead(transaction, deps, author, notificationId),
      );
      wake();
      return sent;
    },
  };
}

const COLUMNS = `notification.notification_id, notification.receiver_id, receiver.name AS receiver,
  notification.kind, notification.state, notification.reason, notification.attempts,
  notification.created_at, notification.next_attempt_at, notification.sent_at,
  CASE WHEN state = 'suppressed' THEN content->>'by' END AS by`;
const TABLES = `notification LEFT JOIN receiver
    ON receiver.receiver_id = notification.receiver_id
   AND receiver.organization_id = notification.organization_id`;

interface NotificationRow {
  notification_id: string;
  receiver_id: string;
  receiver: string | null;
  kind: string;
  state: NotificationState;
  reason: string | null;
  by: string | null;
  attempts: number;
  created_at: Date;
  next_attempt_at: Date | null;
  sent_at: Date | null;
}

function notificationOf(row: NotificationRow): Notification {
  return {
    notificationId: row.notification_id,
    receiverId: row.receiver_id === NOBODY ? null : row.receiver_id,
    receiver: row.receiver,
    kind: row.kind,
    state: row.state,
    reason: row.reason,
    by: row.by,
    attempts: row.attempts,
    createdAt: row.created_at,
    nextAttemptAt: row.next_attempt_at,
    sentAt: row.sent_at,
  };
}

function listStatement(query: NotificationQuery): { text: string; values: unknown[] } {
  const { organizationId, limit, after, state, receiverId, alertId } = query;
  const values: unknown[] = [organizationId, limit + 1];
  const clauses: string[] = [];
  const add = (clause: string, value: unknown): void => {
    if (value !== null) clauses.push(`AND ${clause.replace('?', `$${values.push(value)}`)}`);
  };
  add('notification.notification_id < ?', after);
  add('notification.state = ?', state);
  add('notification.receiver_id = ?', receiverId);
  add(
    `notification.notification_id IN (
       SELECT notification_id FROM notification_alert WHERE alert_id = ?)`,
    alertId,
  );
  const text = `SELECT ${COLUMNS} FROM ${TABLES}
    WHERE notification.organization_id = $1 ${clauses.join(' ')}
    ORDER BY notification.notification_id DESC LIMIT $2`;
  return { text, values };
}

async function getDetail(
  { client }: Transaction,
  organizationId: number,
  notificationId: string,
): Promise<NotificationDetail> {
  const { rows } = await client.query<NotificationRow & { content: NotificationMessage }>(
    `SELECT ${COLUMNS}, content FROM ${TABLES}
     WHERE notification.organization_id = $1 AND notification.notification_id = $2`,
    [organizationId, notificationId],
  );
  const [row] = rows;
  if (row === undefined) throw new NotificationNotFoundError(notificationId);
  const { rows: linked } = await client.query<{ alert_id: string }>(
    `SELECT alert_id FROM notification_alert
     WHERE organization_id = $1 AND notification_id = $2 ORDER BY alert_id LIMIT $3`,
    [organizationId, notificationId, ALERTS_MAX],
  );
  return {
    ...notificationOf(row),
    message: row.state === 'suppressed' ? null : row.content,
    alertIds: linked.map((each) => each.alert_id),
  };
}

async function resendDead(
  transaction: Transaction,
  { writeAudit, now }: NotificationsDeps,
  { organizationId, actor }: RuleAuthor,
  notificationId: string,
): Promise<NotificationDetail> {
  const { client, orm } = transaction;
  await client.query(
    'SELECT FROM notification WHERE organization_id = $1 AND notification_id = $2 FOR UPDATE',
    [organizationId, notificationId],
  );
  const dead = await getDetail(transaction, organizationId, notificationId);
  const { state, receiverId, message, kind, alertIds } = dead;
  if (state !== 'dead' || receiverId === null || message === null) {
    throw new NotificationNotDeadError(state);
  }
  if (dead.receiver === null) throw new ReceiverNotFoundError(receiverId);
  const nowMs = now();
  const createdAt = new Date(nowMs);
  const newId = makeUuidV7(nowMs);
  const { rows } = await client.query<{ group_key: string }>(
    'SELECT group_key FROM notification WHERE organization_id = $1 AND notification_id = $2',
    [organizationId, notificationId],
  );
  await writeNotifications(transaction, [
    {
      notificationId: newId,
      organizationId,
      receiverId,
      groupKey: rows[0]?.group_key ?? '',
      kind: kind === 'digest' ? 'digest' : 'alert',
      state: 'waiting',
      reason: null,
      content: { ...message, notificationId: newId, createdAt: createdAt.toISOString() },
      createdAt,
      nextAttemptAt: createdAt,
      alertIds,
    },
  ]);
  await writeAudit(orm, {
    organizationId,
    actor,
    action: 'notification.resend',
    subject: `notification/${notificationId}`,
    change: { as: newId },
  });
  return getDetail(transaction, organizationId, newId);
}

import {
  inOrganization,
  type TenantDatabase,
  type Transaction,
} from '../../drizzle/transaction.ts';
import type { RuleAuthor, WriteAudit } from '../audit.ts';

/** How an organization is notified as a whole. */
export interface NotificationPolicy {
  /** Since when nobody is told of anything; null: people are told. */
  readonly stoppedAt: Date | null;
  /** Public id of the key that stopped it. */
  readonly stoppedBy: string | null;
}

/** The kill switches of all organizations. */
export interface Policies {
  get(organizationId: number): Promise<NotificationPolicy>;
  /**
   * Stops all notifications of an organization, or lets them go on. What is firing then is told, and what
   * waited is sent. From its COMMIT on nothing is begun to be sent, in no program.
   */
  set(author: RuleAuthor, isStopped: boolean): Promise<NotificationPolicy>;
}

/** What {@link createPolicies} needs. */
export interface PoliciesDeps {
  readonly database: TenantDatabase;
  readonly writeAudit: WriteAudit;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Notification goes on. */
  readonly wake: () => void;
}

/** Every function throws {@link StoreUnavailableError} when the database is away. */
export function createPolicies({ database, writeAudit, now, wake }: PoliciesDeps): Policies {
  return {
    get: (organizationId) =>
      inOrganization(database, organizationId, (transaction) =>
        readPolicy(transaction, organizationId),
      ),
    async set(author, isStopped) {
      const { organizationId, actor } = author;
      const policy = await inOrganization(database, organizationId, async (transaction) => {
        const { client, orm } = transaction;
        // The time of the first stop stays.
        await client.query(
          `INSERT INTO notification_policy AS kept (organization_id, stopped_at, stopped_by)
           VALUES ($1, CASE WHEN $2 THEN now() END, CASE WHEN $2 THEN $3 END)
           ON CONFLICT (organization_id) DO UPDATE SET
             stopped_at = CASE WHEN $2 THEN coalesce(kept.stopped_at, now()) END,
             stopped_by = CASE WHEN $2 THEN coalesce(kept.stopped_by, $3) END`,
          [organizationId, isStopped, actor],
        );
        if (!isStopped) await flushAll(transaction, organizationId, now());
        await writeAudit(orm, {
          organizationId,
          actor,
          action: isStopped ? 'notification.stop' : 'notification.resume',
          subject: 'notification-policy',
        });
        return readPolicy(transaction, organizationId);
      });
      wake();
      return policy;
    },
  };
}

/** The policy of an organization, as it is in a transaction. */
export async function readPolicy(
  { client }: Pick<Transaction, 'client'>,
  organizationId: number,
): Promise<NotificationPolicy> {
  const { rows } = await client.query<{ stopped_at: Date | null; stopped_by: string | null }>(
    'SELECT stopped_at, stopped_by FROM notification_policy WHERE organization_id = $1',
    [organizationId],
  );
  return { stoppedAt: rows[0]?.stopped_at ?? null, stoppedBy: rows[0]?.stopped_by ?? null };
}

/** Has all groups of an organization looked at now. */
export async function flushAll(
  { client }: Pick<Transaction, 'client'>,
  organizationId: number,
  nowMs: number,
): Promise<void> {
  await client.query('UPDATE notification_group SET flush_at = $2 WHERE organization_id = $1', [
    organizationId,
    new Date(nowMs),
  ]);
}

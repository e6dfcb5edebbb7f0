import {
  inOrganization,
  type TenantDatabase,
  type Transaction,
} from '../../drizzle/transaction.ts';
import { makeUuidV7 } from '../../drizzle/uuid-v7.ts';
import {
  NotificationsStoppedError,
  NotificationTestLimitError,
  ReceiverNotFoundError,
} from '../../rule-errors.ts';
import type { RuleAuthor, WriteAudit } from '../audit.ts';
import type { NotificationMessage } from './message.ts';
import { readPolicy } from './policy.ts';
import type { ReceiverKind, ReceiverSettings } from './receiver-settings.ts';
import { lockNotifying } from './receivers.ts';
import { firstIdAt, writeNotifications } from './record.ts';
import { attempt, type AttemptParts, type Claim } from './retry.ts';
import { createTestMessage } from './test-message.ts';

/** How a test ended. */
export interface TestResult {
  readonly notificationId: string;
  readonly ok: boolean;
  /** Why it failed; null when it did not. */
  readonly reason: string | null;
  readonly durationMs: number;
}

/** What {@link sendTest} needs. */
export interface TestSendDeps extends AttemptParts {
  readonly database: TenantDatabase;
  readonly writeAudit: WriteAudit;
  readonly now: () => number;
}

/** Tests of an organization in a minute: whoever may make receivers must not make a cannon of them. */
const TESTS_PER_MINUTE = 10;

/**
 * Sends a test to a receiver, once and at once, past routes and caps. It is recorded like any notification.
 * @throws {ReceiverNotFoundError} @throws {NotificationsStoppedError} while the kill switch is on.
 * @throws {NotificationTestLimitError} @throws {StoreUnavailableError}
 */
export async function sendTest(
  deps: TestSendDeps,
  { organizationId, actor }: RuleAuthor,
  receiverId: string,
): Promise<TestResult> {
  const { database, now } = deps;
  const nowMs = now();
  const notificationId = makeUuidV7(nowMs);
  const wanted = { organizationId, receiverId, notificationId, nowMs };
  const { receiver, message } = await inOrganization(
    database,
    organizationId,
    async (transaction) => {
      const prepared = await prepare(transaction, wanted);
      await deps.writeAudit(transaction.orm, {
        organizationId,
        actor,
        action: 'receiver.test',
        subject: `receiver/${receiverId}`,
        change: { notificationId },
      });
      return prepared;
    },
  );
  const startMs = performance.now();
  const claim = { organizationId, receiverId, receiver, message };
  const outcome = await attempt(deps, claim, new AbortController().signal);
  const durationMs = Math.round(performance.now() - startMs);
  const reason = outcome.ok ? null : outcome.reason;
  await inOrganization(database, organizationId, ({ client }) =>
    client.query(
      `UPDATE notification SET state = $3, reason = $4, attempts = 1,
         sent_at = CASE WHEN $3 = 'sent' THEN $5::timestamptz END
       WHERE organization_id = $1 AND notification_id = $2`,
      [organizationId, notificationId, outcome.ok ? 'sent' : 'dead', reason, new Date(now())],
    ),
  );
  return { notificationId, ok: outcome.ok, reason, durationMs };
}

interface Wanted {
  readonly organizationId: number;
  readonly receiverId: string;
  readonly notificationId: string;
  readonly nowMs: number;
}

/** Writes the test down as failed: that is what it is if the program ends now. */
async function prepare(
  transaction: Transaction,
  { organizationId, receiverId, notificationId, nowMs }: Wanted,
): Promise<{ receiver: NonNullable<Claim['receiver']>; message: NotificationMessage }> {
  const { client } = transaction;
  const { rows } = await client.query<{
    name: string;
    kind: ReceiverKind;
    settings: ReceiverSettings;
    secret: Buffer | null;
    secret_key_id: string | null;
    slug: string;
  }>(
    `SELECT receiver.name, kind, settings, secret, secret_key_id, organization.slug
     FROM receiver JOIN organization USING (organization_id)
     WHERE organization_id = $1 AND receiver_id = $2`,
    [organizationId, receiverId],
  );
  const [row] = rows;
  if (row === undefined) throw new ReceiverNotFoundError(receiverId);
  const policy = await readPolicy(transaction, organizationId);
  if (policy.stoppedAt !== null) throw new NotificationsStoppedError();
  // One at a time of each organization, so that the count stays true until COMMIT.
  await lockNotifying(transaction, organizationId);
  const { rows: counted } = await client.query<{ tests: number }>(
    `SELECT count(*)::int4 AS tests FROM notification
     WHERE organization_id = $1 AND notification_id >= $2 AND kind = 'test'`,
    [organizationId, firstIdAt(nowMs - 60_000)],
  );
  if ((counted[0]?.tests ?? 0) >= TESTS_PER_MINUTE) {
    throw new NotificationTestLimitError(TESTS_PER_MINUTE);
  }
  const organization = row.slug;
  const message = createTestMessage({ notificationId, organization, nowMs });
  await writeNotifications(transaction, [
    {
      notificationId,
      organizationId,
      receiverId,
      groupKey: message.groupKey,
      kind: 'test',
      state: 'dead',
      reason: 'the program ended before an answer',
      content: message,
      createdAt: new Date(nowMs),
      nextAttemptAt: null,
      alertIds: [],
    },
  ]);
  const { name, kind, settings, secret, secret_key_id: secretKeyId } = row;
  return { receiver: { name, kind, settings, secret, secretKeyId }, message };
}

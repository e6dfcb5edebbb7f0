import { guardStore } from '../../drizzle/sqlstate.ts';
import type { TenantDatabase } from '../../drizzle/transaction.ts';
import { reasonOf } from '../../errors.ts';
import { SecretUnreadableError } from '../../rule-errors.ts';
import type { Circuits } from './circuit.ts';
import { Deadline } from './deadline.ts';
import type { NotifyLimits } from './limits.ts';
import type { NotificationMessage, SenderReceiver, SendOutcome, Senders } from './message.ts';
import type { ReceiverKind, ReceiverSettings } from './receiver-settings.ts';
import type { Secrets } from './secrets.ts';

/** A message that this program is to send now. */
export interface Claim {
  readonly notificationId: string;
  readonly organizationId: number;
  readonly receiverId: string;
  readonly message: NotificationMessage;
  /** This one counted. */
  readonly attempts: number;
  readonly createdAtMs: number;
  /** Null: it was deleted. */
  readonly receiver: {
    readonly name: string;
    readonly kind: ReceiverKind;
    readonly settings: ReceiverSettings;
    readonly secret: Buffer | null;
    readonly secretKeyId: string | null;
  } | null;
}

/** Room for claims. */
export interface ClaimRoom {
  /** Messages in all. */
  readonly claimsMax: number;
  /** Of one receiver. */
  readonly perReceiverMax: number;
  /** Receivers that get nothing now. */
  readonly withoutReceivers: readonly string[];
  /** Receivers that get one message at most. */
  readonly singleReceivers: readonly string[];
  /** Messages that are being sent, or of which it is not written yet how that ended. */
  readonly withoutMessages: readonly string[];
}

/** Beyond the time of an attempt, until another program takes a message over. */
const LEASE_EXTRA_MS = 20_000;
const BACKOFF_MS = 5000;
const BACKOFF_MS_MAX = 600_000;
const RETRY_AFTER_MS_MAX = 3_600_000;
const REASON_CHARS_MAX = 300;

/**
 * Takes messages that are due, so that no other program sends them: the oldest one of each group and
 * receiver, so that what comes later of a group is told later. An attempt counts when it is claimed, so that
 * one which ends the program is not tried for ever. @throws {StoreUnavailableError}
 */
export async function claimDue(
  { pool }: Pick<TenantDatabase, 'pool'>,
  { attemptTimeoutMs }: Pick<NotifyLimits, 'attemptTimeoutMs'>,
  room: ClaimRoom,
  nowMs: number,
): Promise<Claim[]> {
  const { rows } = await guardStore(
    pool.query<ClaimRow>(CLAIM, [
      new Date(nowMs),
      new Date(nowMs + attemptTimeoutMs + LEASE_EXTRA_MS),
      room.claimsMax,
      room.perReceiverMax,
      room.withoutReceivers,
      room.singleReceivers,
      room.withoutMessages,
    ]),
  );
  return rows.map(claimOf);
}

const HEAD_COLUMNS = 'notification_id, receiver_id, group_key, organization_id, next_attempt_at';
/** Goes from group to group by `notification_waiting_idx`: what waits behind the oldest is not read. */
const CLAIM = `
  WITH RECURSIVE head AS (
    (SELECT ${HEAD_COLUMNS} FROM notification WHERE state = 'waiting'
     ORDER BY receiver_id, group_key, notification_id LIMIT 1)
    UNION ALL
    SELECT following.* FROM head CROSS JOIN LATERAL (
      SELECT ${HEAD_COLUMNS} FROM notification
      WHERE state = 'waiting' AND (receiver_id, group_key) > (head.receiver_id, head.group_key)
      ORDER BY receiver_id, group_key, notification_id LIMIT 1) AS following
  ), due AS (
    SELECT notification_id, receiver_id, next_attempt_at,
           row_number() OVER (PARTITION BY receiver_id ORDER BY next_attempt_at, notification_id)
             AS place
    FROM head
    LEFT JOIN notification_policy AS policy USING (organization_id)
    WHERE next_attempt_at <= $1 AND policy.stopped_at IS NULL
      AND receiver_id <> ALL($5::uuid[]) AND notification_id <> ALL($7::uuid[])
  ), claimed AS (
    SELECT notification_id FROM notification
    WHERE notification_id IN (
        SELECT notification_id FROM due
        WHERE place <= CASE WHEN receiver_id = ANY($6::uuid[]) THEN 1 ELSE $4 END
        ORDER BY next_attempt_at LIMIT $3
      )
      AND state = 'waiting' AND next_attempt_at <= $1
    FOR UPDATE SKIP LOCKED
  ), leased AS (
    UPDATE notification SET attempts = least(attempts + 1, 32000), next_attempt_at = $2
    FROM claimed WHERE notification.notification_id = claimed.notification_id
    RETURNING notification.*
  )
  SELECT leased.notification_id, leased.organization_id, leased.receiver_id, leased.content,
         leased.attempts, leased.created_at, receiver.name, receiver.kind, receiver.settings,
         receiver.secret, receiver.secret_key_id
  FROM leased LEFT JOIN receiver
    ON receiver.receiver_id = leased.receiver_id
   AND receiver.organization_id = leased.organization_id`;

interface ClaimRow {
  notification_id: string;
  organization_id: number;
  receiver_id: string;
  content: NotificationMessage;
  attempts: number;
  created_at: Date;
  name: string | null;
  kind: ReceiverKind;
  settings: ReceiverSettings;
  secret: Buffer | null;
  secret_key_id: string | null;
}

function claimOf(row: ClaimRow): Claim {
  return {
    notificationId: row.notification_id,
    organizationId: row.organization_id,
    receiverId: row.receiver_id,
    message: row.content,
    attempts: row.attempts,
    createdAtMs: row.created_at.getTime(),
    receiver:
      row.name === null
        ? null
        : {
            name: row.name,
            kind: row.kind,
            settings: row.settings,
            secret: row.secret,
            secretKeyId: row.secret_key_id,
          },
  };
}

/** When the next message is due, in ms; null when none waits. @throws {StoreUnavailableError} */
export async function nextAttemptMs({
  pool,
}: Pick<TenantDatabase, 'pool'>): Promise<number | null> {
  const { rows } = await guardStore(
    pool.query<{ at: Date | null }>(
      `SELECT min(next_attempt_at) AS at FROM notification WHERE state = 'waiting'`,
    ),
  );
  return rows[0]?.at?.getTime() ?? null;
}

/** What {@link attempt} needs. */
export interface AttemptParts {
  readonly senders: Senders;
  readonly secrets: Secrets;
  readonly limits: Pick<NotifyLimits, 'attemptTimeoutMs'>;
}

/**
 * Makes one attempt. Ends within the time of an attempt even if the sender does not. Never rejects; no
 * secret is in the reason.
 */
export async function attempt(
  { senders, secrets, limits }: AttemptParts,
  claim: Pick<Claim, 'receiver' | 'receiverId' | 'organizationId' | 'message'>,
  stopped: AbortSignal,
): Promise<SendOutcome> {
  const { receiver } = claim;
  if (receiver === null)
    return { ok: false, isRetryable: false, reason: 'the receiver is deleted' };
  let secret: string | null = null;
  const deadline = new Deadline(stopped, limits.attemptTimeoutMs);
  try {
    secret = openSecret(secrets, claim.receiverId, receiver);
    const { name, kind, settings } = receiver;
    const { receiverId, organizationId, message } = claim;
    const to: SenderReceiver = { receiverId, organizationId, name, kind, settings, secret };
    const { signal } = deadline;
    const outcome = await Promise.race([senders[kind].send(to, message, signal), endOf(signal)]);
    return outcome.ok ? outcome : { ...outcome, reason: withoutSecret(outcome.reason, secret) };
  } catch (error) {
    // A key may be brought back, so that trying again may help.
    const reason = error instanceof SecretUnreadableError ? error.message : reasonOf(error);
    return { ok: false, isRetryable: true, reason: withoutSecret(reason, secret) };
  } finally {
    deadline.release();
  }
}

function openSecret(
  secrets: Secrets,
  receiverId: string,
  { secret, secretKeyId }: NonNullable<Claim['receiver']>,
): string | null {
  if (secret === null || secretKeyId === null) return null;
  return secrets.open(receiverId, { secret, keyId: secretKeyId });
}

/** Shortly behind the end of a signal, for senders that do not heed it. */
function endOf(signal: AbortSignal): Promise<SendOutcome> {
  const late: SendOutcome = { ok: false, isRetryable: true, reason: 'no answer in time' };
  return new Promise((resolve) => {
    const end = (): void => void setTimeout(() => resolve(late), 250).unref();
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { once: true });
  });
}

function withoutSecret(reason: string, secret: string | null): string {
  const text = secret === null ? reason : reason.replaceAll(secret, '[redacted]');
  return text.slice(0, REASON_CHARS_MAX);
}

/** What is to become of a message behind a failed attempt. */
export type Verdict =
  { readonly isDead: true } | { readonly isDead: false; readonly nextMs: number };

/**
 * Decides on it: given up when trying again does not help, after so many attempts, or at its age; else
 * tried again after a random part of 5 s, 10 s, 20 s … 10 min, or when the receiver asked for.
 * @param random 0 to 1.
 */
export function judge(
  outcome: Extract<SendOutcome, { ok: false }>,
  { attempts, createdAtMs }: Pick<Claim, 'attempts' | 'createdAtMs'>,
  limits: Pick<NotifyLimits, 'attemptsMax' | 'ageMaxMs'>,
  { nowMs, random }: { readonly nowMs: number; readonly random: number },
): Verdict {
  if (!outcome.isRetryable || attempts >= limits.attemptsMax) return { isDead: true };
  const backoffMs = Math.min(BACKOFF_MS_MAX, BACKOFF_MS * 2 ** Math.min(attempts - 1, 20)) * random;
  const askedMs = Math.min(outcome.retryAfterMs ?? 0, RETRY_AFTER_MS_MAX);
  const nextMs = Math.ceil(nowMs + Math.max(backoffMs, askedMs));
  return nextMs - createdAtMs > limits.ageMaxMs ? { isDead: true } : { isDead: false, nextMs };
}

/**
 * Writes how an attempt ended, if the message still waits for it.
 * @throws {StoreUnavailableError}; it is tried again then, when its lease ends.
 */
export async function settle(
  { pool }: Pick<TenantDatabase, 'pool'>,
  {
    notificationId,
    organizationId,
    attempts,
  }: Pick<Claim, 'notificationId' | 'organizationId' | 'attempts'>,
  { state, reason, at }: Settled,
): Promise<void> {
  await guardStore(
    pool.query(
      `UPDATE notification SET state = $4, reason = $5, next_attempt_at = $6,
         sent_at = CASE WHEN $4 = 'sent' THEN $7::timestamptz END
       WHERE organization_id = $1 AND notification_id = $2 AND state = 'waiting' AND attempts = $3`,
      [
        organizationId,
        notificationId,
        attempts,
        state,
        reason,
        state === 'waiting' ? at : null,
        state === 'sent' ? at : null,
      ],
    ),
  );
}

/** How an attempt ended. */
export interface Settled {
  readonly state: 'waiting' | 'sent' | 'dead';
  readonly reason: string | null;
  /** When it is tried again, or was sent. */
  readonly at: Date | null;
}

/** Gives up what is too old and was not tried, as when its receiver is left alone. @returns how many. */
export async function buryOld(
  { pool }: Pick<TenantDatabase, 'pool'>,
  ageMaxMs: number,
  nowMs: number,
): Promise<number> {
  const { rowCount } = await guardStore(
    pool.query(
      `UPDATE notification SET state = 'dead', next_attempt_at = NULL,
         reason = coalesce(reason, 'too old')
       WHERE state = 'waiting' AND created_at < $1 AND next_attempt_at <= $2`,
      [new Date(nowMs - ageMaxMs), new Date(nowMs)],
    ),
  );
  return rowCount ?? 0;
}

/** Notes what an attempt says of its receiver. */
export function noteCircuit(
  circuits: Circuits,
  receiverId: string,
  outcome: SendOutcome,
  nowMs: number,
): void {
  if (outcome.ok) circuits.succeeded(receiverId);
  else if (outcome.isRetryable) circuits.failed(receiverId, nowMs);
}

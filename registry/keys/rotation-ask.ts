import { DeviceKeylessError, KeyRotationOpenError } from '../../command-errors.ts';
import type { Transaction } from '../../drizzle/transaction.ts';
import { assertBelowLimit } from '../api-keys.ts';
import { writeAudit } from '../audit.ts';
import { getDeviceRow } from '../device-row.ts';
import type { Author } from '../devices.ts';
import type { RotationRequest } from './key-rotations.ts';
import { isOpen, readRotation, type KeyRotation } from './rotation-row.ts';

/** A rotation whose command is to be sent. */
export interface AskedRotation {
  readonly deviceId: number;
  readonly askedAt: Date;
  /** How long the command may wait. */
  readonly ttlMs: number;
}

/** A rotation whose command was sent before. */
interface KnownRotation {
  readonly deviceId: number;
  readonly rotation: KeyRotation;
}

/** Whether there is nothing left to do. */
export function isAsked(asked: AskedRotation | KnownRotation): asked is KnownRotation {
  return 'rotation' in asked;
}

/**
 * Opens a rotation, or finds the one that the same request has opened: one whose command was not noted, since
 * the program died, is to be gone on with.
 * @throws {DeviceNotFoundError} @throws {KeyRotationOpenError} @throws {DeviceKeylessError}
 * @throws {KeyLimitError}
 */
export async function askRotation(
  transaction: Transaction,
  author: Author,
  { device, campaignId, ttlMs }: RotationRequest,
  nowMs: number,
): Promise<AskedRotation | KnownRotation> {
  const { organizationId } = author;
  const { deviceId } = await getDeviceRow(transaction.orm, organizationId, device, true);
  const before = await readRotation(transaction, organizationId, deviceId, nowMs);
  if (before !== null && before.campaignId === campaignId) {
    if (before.state === 'asked' && before.commandId === null) return resumed(before);
    // Whatever has become of it: a campaign begins with a device once.
    if (campaignId !== null) return { deviceId, rotation: before };
  }
  if (before !== null && isOpen(before) && !(await hasFailed(transaction, before))) {
    throw new KeyRotationOpenError(device);
  }
  const oldKeyId = await findKeyInUse(transaction, deviceId, nowMs);
  if (oldKeyId === null) throw new DeviceKeylessError(device);
  await assertBelowLimit(transaction.orm, deviceId);
  const askedAt = new Date(nowMs);
  const endsAt = new Date(nowMs + ttlMs);
  const opened = { organizationId, deviceId, oldKeyId, campaignId, askedAt, endsAt };
  await insertRotation(transaction, opened);
  await writeAudit(transaction.orm, {
    ...author,
    action: 'key.rotate',
    subject: `device/${device}`,
    change: { oldKeyId, campaignId, endsAt },
  });
  return { deviceId, askedAt, ttlMs };
}

/** As it was asked for first: the same command has to come of it. */
function resumed({ deviceId, askedAt, endsAt }: KeyRotation): AskedRotation {
  return { deviceId, askedAt, ttlMs: endsAt.getTime() - askedAt.getTime() };
}

/** Whether nothing comes of it any more: its command has ended, and no key was asked for. */
async function hasFailed(
  { client }: Transaction,
  { state, commandId }: KeyRotation,
): Promise<boolean> {
  if (state !== 'asked' || commandId === null) return false;
  const { rows } = await client.query(
    'SELECT FROM command WHERE command_id = $1 AND ended_at IS NOT NULL',
    [commandId],
  );
  return rows.length > 0;
}

/** The key that the device has used last, one that retires only if there is no other. */
async function findKeyInUse(
  { client }: Transaction,
  deviceId: number,
  nowMs: number,
): Promise<string | null> {
  const { rows } = await client.query<{ key_id: string }>(
    `SELECT key_id FROM api_key
     WHERE device_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)
       AND (replaces_key_id IS NULL OR activated_at IS NOT NULL)
     ORDER BY expires_at IS NULL DESC, last_used_at DESC NULLS LAST, created_at DESC LIMIT 1`,
    [deviceId, new Date(nowMs)],
  );
  return rows[0]?.key_id ?? null;
}

interface OpenedRotation extends Omit<AskedRotation, 'ttlMs'> {
  readonly organizationId: number;
  readonly oldKeyId: string;
  readonly campaignId: string | null;
  readonly endsAt: Date;
}

async function insertRotation({ client }: Transaction, opened: OpenedRotation): Promise<void> {
  const { organizationId, deviceId, oldKeyId, campaignId, askedAt, endsAt } = opened;
  await client.query(
    `INSERT INTO key_rotation
       (device_id, organization_id, old_key_id, campaign_id, asked_at, ends_at)
     VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (device_id) DO UPDATE SET
       old_key_id = excluded.old_key_id, new_key_id = NULL, command_id = NULL,
       campaign_id = excluded.campaign_id, asked_at = excluded.asked_at, issued_at = NULL,
       activated_at = NULL, old_used_at = NULL, ends_at = excluded.ends_at`,
    [deviceId, organizationId, oldKeyId, campaignId, askedAt, endsAt],
  );
}

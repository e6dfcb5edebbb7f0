import { KeyRotationFinalError, KeyRotationNotFoundError } from '../../command-errors.ts';
import type { Transaction } from '../../drizzle/transaction.ts';
import { endKey } from '../api-keys.ts';
import { writeAudit } from '../audit.ts';
import { getDeviceRow } from '../device-row.ts';
import type { Author } from '../devices.ts';
import type { Revocations } from '../revocations.ts';
import { isOpen, readRotation, type KeyRotation } from './rotation-row.ts';

/** What is left to do behind COMMIT. */
interface RolledBack {
  /** Keys about which something else holds now; their connections end. */
  readonly keyIds: readonly string[];
  /** A command that may still wait for the device. */
  readonly commandId: string | null;
}

/**
 * Undoes a rotation: the new key ends, the old one stays for good. With a campaign only its own one, and
 * only before the device has used its new key.
 * @returns null when there is nothing that a campaign might undo.
 * @throws {DeviceNotFoundError} @throws {KeyRotationNotFoundError} @throws {KeyRotationFinalError}
 */
export async function rollBackRotation(
  transaction: Transaction,
  author: Author,
  { device, campaignId }: { readonly device: string; readonly campaignId: string | null },
  { revocations, nowMs }: { readonly revocations: Revocations; readonly nowMs: number },
): Promise<RolledBack | null> {
  const { organizationId } = author;
  const { deviceId } = await getDeviceRow(transaction.orm, organizationId, device, true);
  const rotation = await readRotation(transaction, organizationId, deviceId, nowMs);
  if (campaignId !== null) {
    if (rotation?.campaignId !== campaignId || !isOpen(rotation)) return null;
  } else if (rotation === null || isOver(rotation)) throw new KeyRotationNotFoundError(device);
  const { oldKeyId, newKeyId, commandId } = rotation;
  const keyIds: string[] = [];
  if (rotation.state === 'retiring') {
    await restoreKey(transaction, { deviceId, device, oldKeyId, nowMs });
    keyIds.push(oldKeyId);
  }
  if (newKeyId !== null) {
    await endKey(transaction, author, {
      keyId: newKeyId,
      subject: `device/${device}/key/${newKeyId}`,
    });
    keyIds.push(newKeyId);
  }
  for (const keyId of keyIds) await revocations.announce(transaction, { keyId });
  await transaction.client.query('DELETE FROM key_rotation WHERE device_id = $1', [deviceId]);
  await writeAudit(transaction.orm, {
    ...author,
    action: 'key.rollback',
    subject: `device/${device}`,
    change: { oldKeyId, newKeyId, was: rotation.state },
  });
  return { keyIds, commandId: isOpen(rotation) ? commandId : null };
}

function isOver({ state }: KeyRotation): boolean {
  return state === 'done' || state === 'expired';
}

async function restoreKey(
  { client }: Transaction,
  old: {
    readonly deviceId: number;
    readonly device: string;
    readonly oldKeyId: string;
    readonly nowMs: number;
  },
): Promise<void> {
  const { rowCount } = await client.query(
    `UPDATE api_key SET expires_at = NULL
     WHERE key_id = $1 AND device_id = $2 AND revoked_at IS NULL AND expires_at > $3`,
    [old.oldKeyId, old.deviceId, new Date(old.nowMs)],
  );
  if (rowCount === 0) throw new KeyRotationFinalError(old.device);
}

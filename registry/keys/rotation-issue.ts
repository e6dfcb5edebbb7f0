import type { Transaction } from '../../drizzle/transaction.ts';
import type { KeyAnswer } from '../../firmware-protocol/key-request.ts';
import { endKey, insertKey } from '../api-keys.ts';
import type { Revocations } from '../revocations.ts';
import type { AskingDevice } from './key-rotations.ts';
import { isOpen, lockDevice, readRotation, type KeyRotation } from './rotation-row.ts';

/** Keys that one rotation gives at most; a device that cannot keep one of so many never will. */
export const KEYS_PER_ROTATION_MAX = 20;

/** What decides on a device that asks. */
interface IssueParts {
  readonly revocations: Revocations;
  readonly pendingMs: number;
  readonly reissueMs: number;
  readonly nowMs: number;
}

/** What a device is told, and the key that ended because of it. */
interface Issued {
  readonly answer: KeyAnswer;
  readonly endedKeyId: string | null;
}

const UNASKED: Issued = { answer: { st: 'no', code: 'unasked' }, endedKeyId: null };
const RETIRING: Issued = { answer: { st: 'no', code: 'retiring' }, endedKeyId: null };

/**
 * Makes a device's new key, good for a while and for nothing before it is used. A device that asks again
 * has not got the one before, which ends.
 */
export async function issueKey(
  transaction: Transaction,
  from: AskingDevice,
  parts: IssueParts,
): Promise<Issued> {
  const { organizationId, deviceId } = from;
  const owner = await lockDevice(transaction, from);
  if (owner === null) return UNASKED;
  const rotation = await readRotation(transaction, organizationId, deviceId, parts.nowMs);
  if (rotation === null || !isOpen(rotation)) return UNASKED;
  const old = await findOwnKey(transaction, from);
  if (old === null) return UNASKED;
  if (old.isReplaced) return RETIRING;
  const soonestMs = (rotation.issuedAt?.getTime() ?? -Infinity) + parts.reissueMs;
  if (soonestMs > parts.nowMs) {
    const retry = Math.ceil((soonestMs - parts.nowMs) / 1000);
    return { answer: { st: 'wait', retry }, endedKeyId: null };
  }
  if ((await countIssued(transaction, from, rotation, parts)) >= KEYS_PER_ROTATION_MAX) {
    return UNASKED;
  }
  const author = { organizationId, actor: from.keyId };
  const endedKeyId = rotation.newKeyId;
  if (endedKeyId !== null) {
    const subject = `device/${owner.device}/key/${endedKeyId}`;
    await endKey(transaction, author, { keyId: endedKeyId, subject });
    await parts.revocations.announce(transaction, { keyId: endedKeyId });
  }
  const expiresAt = new Date(parts.nowMs + parts.pendingMs);
  const made = await insertKey(transaction, author, {
    deviceId,
    device: owner.device,
    name: old.name,
    successor: { replacesKeyId: from.keyId, expiresAt },
  });
  await noteIssued(transaction, from, { newKeyId: made.keyId, expiresAt, nowMs: parts.nowMs });
  const user = `${owner.organization}/${owner.device}`;
  return { answer: { st: 'ok', user, key: made.key }, endedKeyId };
}

/**
 * The key of the connection, if it is still one of this device. `isReplaced`: it retires, and another key is
 * in its place. Whoever still has such a key is given no new one: a new key would lead past the one in its
 * place, which would then never end.
 */
async function findOwnKey(
  { client }: Transaction,
  { deviceId, keyId }: AskingDevice,
): Promise<{ readonly name: string; readonly isReplaced: boolean } | null> {
  const { rows } = await client.query<{ name: string; is_replaced: boolean }>(
    `SELECT name, expires_at IS NOT NULL AND EXISTS (
       SELECT FROM api_key AS other WHERE other.device_id = $2 AND other.revoked_at IS NULL
         AND other.expires_at IS NULL
     ) AS is_replaced
     FROM api_key WHERE key_id = $1 AND device_id = $2 AND revoked_at IS NULL`,
    [keyId, deviceId],
  );
  return rows.map(({ name, is_replaced: isReplaced }) => ({ name, isReplaced }))[0] ?? null;
}

async function countIssued(
  { client }: Transaction,
  { deviceId }: AskingDevice,
  { askedAt }: KeyRotation,
  { pendingMs }: IssueParts,
): Promise<number> {
  const { rows } = await client.query<{ issued: number }>(
    `SELECT count(*)::int4 AS issued FROM api_key
     WHERE device_id = $1 AND replaces_key_id IS NOT NULL AND activated_at IS NULL
       AND expires_at >= $2`,
    [deviceId, new Date(askedAt.getTime() + pendingMs)],
  );
  return rows[0]?.issued ?? 0;
}

async function noteIssued(
  { client }: Transaction,
  { deviceId, keyId }: AskingDevice,
  issued: { readonly newKeyId: string; readonly expiresAt: Date; readonly nowMs: number },
): Promise<void> {
  await client.query(
    `UPDATE key_rotation SET old_key_id = $2, new_key_id = $3, issued_at = $4, ends_at = $5
     WHERE device_id = $1`,
    [deviceId, keyId, issued.newKeyId, new Date(issued.nowMs), issued.expiresAt],
  );
}

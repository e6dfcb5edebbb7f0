import type { Transaction } from '../../drizzle/transaction.ts';
import type { KeyAnswer } from '../../firmware-protocol/key-request.ts';
import { endKey, insertKey } from '../api-keys.ts';
import { insertDevice } from '../devices.ts';
import type { Revocations } from '../revocations.ts';
import {
  decideClaim,
  type ClaimRules,
  type ClaimState,
  type KnownClaim,
  type NamedDevice,
} from './claim-decision.ts';
import type { ClaimRequest } from './claims.ts';

/** What a claim is settled with. */
interface SettlementParts {
  readonly revocations: Revocations;
  readonly devicesMax: number;
  readonly waitingMax: number;
  readonly reissueMs: number;
  readonly isConnected: (deviceId: number) => boolean;
  readonly now: () => number;
}

/** What became of a claim. */
export interface SettledClaim {
  readonly answer: KeyAnswer;
  /** Keys that have ended; to be told behind COMMIT. */
  readonly endedKeyIds: readonly string[];
  readonly newDeviceId: number | null;
}

interface Policy extends ClaimRules {
  readonly deviceType: string | null;
  readonly tags: readonly string[];
}

interface FoundDevice extends NamedDevice {
  readonly deviceId: number;
  readonly openKeyIds: readonly string[];
}

/**
 * Decides on a claim and does what follows. The row of the claim key is held: claims with one key are
 * settled one behind the other, so that its quota holds and a board that asks twice at once gets one key.
 * @throws {DeviceExistsError} when somebody else has just made the device. @throws {DeviceLimitError}
 */
export async function settleClaim(
  transaction: Transaction,
  request: ClaimRequest,
  parts: SettlementParts,
): Promise<SettledClaim> {
  const nowMs = parts.now();
  const policy = await lockPolicy(transaction, request, nowMs);
  if (policy === null) return told({ st: 'no', code: 'expired' });
  const claim = await lockClaim(transaction, request);
  const device = await lockNamed(transaction, request, parts);
  const { waitingMax, reissueMs } = parts;
  const waiting = policy.needsApproval ? await countWaiting(transaction, request) : 0;
  const { model } = request;
  const bounds = { waiting, waitingMax, reissueMs, nowMs };
  const decision = decideClaim({ rules: policy, model, claim, device, ...bounds });
  if (decision.do === 'deny') return told({ st: 'no', code: decision.code });
  if (decision.do === 'wait') {
    if (decision.isNoted) await noteClaim(transaction, request, { state: 'waiting', nowMs });
    return told({ st: 'wait', retry: decision.retryS });
  }
  const owner = device ?? (await createDevice(transaction, request, policy, parts.devicesMax));
  const endedKeyIds = device?.openKeyIds ?? [];
  const key = await issue(transaction, request, { ...owner, endedKeyIds }, parts.revocations);
  await noteClaim(transaction, request, { state: 'issued', nowMs });
  const user = `${request.organization}/${request.hardwareId}`;
  const newDeviceId = device === null ? owner.deviceId : null;
  return { answer: { st: 'ok', user, key }, endedKeyIds, newDeviceId };
}

function told(answer: KeyAnswer): SettledClaim {
  return { answer, endedKeyIds: [], newDeviceId: null };
}

/** Null when the claim key has ended. It cannot be revoked while this goes on. */
async function lockPolicy(
  { client }: Transaction,
  { organizationId, keyId }: ClaimRequest,
  nowMs: number,
): Promise<Policy | null> {
  const { rows } = await client.query<{
    quota: number;
    claimed: number;
    device_type: string | null;
    tags: string[];
    models: string[] | null;
    needs_approval: boolean;
  }>(
    `SELECT claim_policy.* FROM claim_policy JOIN api_key USING (key_id)
     WHERE key_id = $1 AND claim_policy.organization_id = $2 AND revoked_at IS NULL
       AND (expires_at IS NULL OR expires_at > $3)
     FOR UPDATE OF claim_policy FOR SHARE OF api_key`,
    [keyId, organizationId, new Date(nowMs)],
  );
  const [row] = rows;
  if (row === undefined) return null;
  const { quota, claimed, device_type: deviceType, tags, models } = row;
  return { keyId, quota, claimed, deviceType, tags, models, needsApproval: row.needs_approval };
}

async function lockClaim(
  { client }: Transaction,
  { organizationId, hardwareId }: ClaimRequest,
): Promise<KnownClaim | null> {
  const { rows } = await client.query<{ key_id: string; state: ClaimState; requested_at: Date }>(
    `SELECT key_id, state, requested_at FROM device_claim
     WHERE organization_id = $1 AND hardware_id = $2 FOR UPDATE`,
    [organizationId, hardwareId],
  );
  const [row] = rows;
  if (row === undefined) return null;
  return { keyId: row.key_id, state: row.state, requestedMs: row.requested_at.getTime() };
}

/** The device is held as the first use of its keys holds it: what is found here stays so until COMMIT. */
async function lockNamed(
  { client }: Transaction,
  { organizationId, hardwareId, keyId }: ClaimRequest,
  { isConnected }: SettlementParts,
): Promise<FoundDevice | null> {
  const { rows: devices } = await client.query<{ device_id: number; is_disabled: boolean }>(
    `SELECT device_id, disabled_at IS NOT NULL AS is_disabled FROM device
     WHERE organization_id = $1 AND slug = $2 FOR NO KEY UPDATE`,
    [organizationId, hardwareId],
  );
  const [row] = devices;
  if (row === undefined) return null;
  const deviceId = row.device_id;
  const { rows: keys } = await client.query<{
    keys: number;
    foreign_keys: number;
    open_key_ids: string[];
    has_presence: boolean;
  }>(
    `SELECT count(*)::int4 AS keys,
            count(*) FILTER (WHERE replaces_key_id IS DISTINCT FROM $2 OR activated_at IS NOT NULL
                                OR last_used_at IS NOT NULL)::int4 AS foreign_keys,
            coalesce(array_agg(key_id) FILTER (WHERE revoked_at IS NULL), '{}') AS open_key_ids,
            EXISTS (SELECT FROM device_presence WHERE device_id = $1) AS has_presence
     FROM api_key WHERE device_id = $1`,
    [deviceId, keyId],
  );
  const [found] = keys;
  const openKeyIds = found?.open_key_ids ?? [];
  return {
    deviceId,
    isDisabled: row.is_disabled,
    hasConnected: found?.has_presence !== false || isConnected(deviceId),
    hasForeignKeys: found?.foreign_keys !== 0,
    keys: found?.keys ?? 0,
    openKeys: openKeyIds.length,
    openKeyIds,
  };
}

async function countWaiting(
  { client }: Transaction,
  { organizationId, hardwareId, keyId }: ClaimRequest,
): Promise<number> {
  const { rows } = await client.query<{ waiting: number }>(
    `SELECT count(*)::int4 AS waiting FROM device_claim
     WHERE organization_id = $1 AND key_id = $2 AND state = 'waiting' AND hardware_id <> $3`,
    [organizationId, keyId, hardwareId],
  );
  return rows[0]?.waiting ?? 0;
}

async function createDevice(
  transaction: Transaction,
  { organizationId, hardwareId, keyId }: ClaimRequest,
  { tags, deviceType }: Policy,
  devicesMax: number,
): Promise<{ deviceId: number }> {
  await transaction.client.query(
    'UPDATE claim_policy SET claimed = claimed + 1 WHERE key_id = $1 AND organization_id = $2',
    [keyId, organizationId],
  );
  const wanted = { slug: hardwareId, tags, type: deviceType };
  return insertDevice(transaction, { organizationId, actor: keyId }, wanted, devicesMax);
}

/** @returns the text of the new key; those before it end. */
async function issue(
  transaction: Transaction,
  { organizationId, hardwareId: device, keyId }: ClaimRequest,
  { deviceId, endedKeyIds }: { deviceId: number; endedKeyIds: readonly string[] },
  revocations: Revocations,
): Promise<string> {
  const author = { organizationId, actor: keyId };
  for (const endedKeyId of endedKeyIds) {
    const subject = `device/${device}/key/${endedKeyId}`;
    await endKey(transaction, author, { keyId: endedKeyId, subject });
    await revocations.announce(transaction, { keyId: endedKeyId });
  }
  const successor = { replacesKeyId: keyId, expiresAt: null };
  const made = await insertKey(transaction, author, {
    deviceId,
    device,
    name: 'claimed',
    successor,
  });
  return made.key;
}

/** An approval is used up when the key is issued; who gave it stays written down. */
async function noteClaim(
  { client }: Transaction,
  { organizationId, hardwareId, keyId, model, address }: ClaimRequest,
  { state, nowMs }: { readonly state: 'waiting' | 'issued'; readonly nowMs: number },
): Promise<void> {
  await client.query(
    `INSERT INTO device_claim AS stored
       (organization_id, hardware_id, key_id, model, state, address, requested_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7)
     ON CONFLICT (organization_id, hardware_id) DO UPDATE SET
       key_id = excluded.key_id, model = excluded.model, state = excluded.state,
       address = excluded.address, requested_at = excluded.requested_at,
       decided_at = CASE WHEN excluded.state = 'issued' THEN stored.decided_at END,
       decided_by = CASE WHEN excluded.state = 'issued' THEN stored.decided_by END`,
    [organizationId, hardwareId, keyId, model, state, address, new Date(nowMs)],
  );
}

import {
  inOrganization,
  type TenantDatabase,
  type Transaction,
} from '../../drizzle/transaction.ts';
import { reasonOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { writeAudit } from '../audit.ts';
import type { DevicePrincipal } from '../principal.ts';
import type { Revocations } from '../revocations.ts';
import type { KeyMetrics } from './metrics.ts';
import { lockDevice } from './rotation-row.ts';

/** A rotation has succeeded: the device has used its new key. */
export interface KeyActivated {
  readonly organizationId: number;
  readonly deviceId: number;
  /** The new key. */
  readonly keyId: string;
  readonly campaignId: string | null;
  /** Of the `sys.rekey` that asked for it; null: it was not noted. */
  readonly commandId: string | null;
}

/** A rotation that has succeeded, with the key that was replaced. */
interface Retired extends Pick<KeyActivated, 'campaignId' | 'commandId'> {
  readonly oldKeyId: string;
}

/** What {@link KeyActivation} needs. */
export interface KeyActivationDeps {
  readonly database: TenantDatabase;
  readonly revocations: Revocations;
  /** How long the old key of a device is good for once the new one is in use. */
  readonly graceMs: number;
  readonly metrics: KeyMetrics;
  readonly log: Logger;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** The old key of a device is noted as used at most this often. */
const OLD_USE_MS = 60_000;
/** Devices whose last note is remembered; beyond it the memory starts over. */
const REMEMBERED_MAX = 10_000;

/**
 * The first use of a key that takes the place of another. It is committed before who has the key is let in:
 * a key that was used is never taken back as unused, and a device that got in never loses its key because
 * a program died.
 */
export class KeyActivation {
  readonly #deps: KeyActivationDeps;
  readonly #notedAt = new Map<number, number>();
  readonly #listeners = new Set<(activated: KeyActivated) => void>();

  constructor(deps: KeyActivationDeps) {
    this.#deps = deps;
  }

  /** Told after COMMIT of each rotation that succeeds. Must not throw. */
  onActivated(listener: (activated: KeyActivated) => void): void {
    this.#listeners.add(listener);
  }

  /**
   * Notes the first use of a key. A key that replaces one of its device begins the other's grace. Does
   * nothing when the key was used before or may not be used any more. @throws {StoreUnavailableError}
   */
  async activate(principal: DevicePrincipal): Promise<void> {
    const { database, revocations, metrics } = this.#deps;
    const { organizationId, deviceId, keyId } = principal;
    const rotated = await inOrganization(database, organizationId, (transaction) =>
      this.#activate(transaction, principal),
    );
    if (rotated === null) return;
    metrics.rotation('activated');
    // Nobody may remember it without its end; who is connected with it comes again and learns of it.
    revocations.tell({ keyId: rotated.oldKeyId });
    const { campaignId, commandId } = rotated;
    for (const listener of this.#listeners) {
      listener({ organizationId, deviceId, keyId, campaignId, commandId });
    }
  }

  /** Notes, in the background, that a device uses its old key again. */
  retiringUsed({ organizationId, deviceId, keyId }: DevicePrincipal): void {
    const { now, metrics, log } = this.#deps;
    if (now() - (this.#notedAt.get(deviceId) ?? -Infinity) < OLD_USE_MS) return;
    if (this.#notedAt.size >= REMEMBERED_MAX) this.#notedAt.clear();
    this.#notedAt.set(deviceId, now());
    metrics.rotation('old_key_used');
    const usedAt = new Date(now());
    inOrganization(this.#deps.database, organizationId, ({ client }) =>
      client.query(
        `UPDATE key_rotation SET old_used_at = $4 WHERE organization_id = $1 AND device_id = $2
           AND old_key_id = $3 AND activated_at IS NOT NULL`,
        [organizationId, deviceId, keyId, usedAt],
      ),
    ).catch((error: unknown) => {
      this.#notedAt.delete(deviceId);
      log.debug({ reason: reasonOf(error) }, 'use of an old key not written');
    });
  }

  /** @returns what was replaced; null when no key of the device was, or there was nothing to do. */
  async #activate(transaction: Transaction, principal: DevicePrincipal): Promise<Retired | null> {
    const { organizationId, deviceId, keyId } = principal;
    const owner = await lockDevice(transaction, principal);
    if (owner === null) return null;
    const at = new Date(this.#deps.now());
    const { rowCount } = await transaction.client.query(
      `UPDATE api_key SET activated_at = $3, expires_at = NULL
       WHERE key_id = $1 AND device_id = $2 AND activated_at IS NULL AND revoked_at IS NULL
         AND (expires_at IS NULL OR expires_at > $3)`,
      [keyId, deviceId, at],
    );
    if (rowCount === 0) return null;
    await writeAudit(transaction.orm, {
      organizationId,
      actor: keyId,
      action: 'key.activate',
      subject: `device/${owner.device}/key/${keyId}`,
    });
    return this.#retire(transaction, principal, at);
  }

  async #retire(
    transaction: Transaction,
    { organizationId, deviceId, keyId }: DevicePrincipal,
    at: Date,
  ): Promise<Retired | null> {
    const endsAt = new Date(at.getTime() + this.#deps.graceMs);
    const { rows } = await transaction.client.query<{
      old_key_id: string;
      campaign_id: string | null;
      command_id: string | null;
    }>(
      `WITH rotation AS (
         UPDATE key_rotation SET activated_at = $4, ends_at = $5
         WHERE organization_id = $1 AND device_id = $2 AND new_key_id = $3 AND activated_at IS NULL
         RETURNING old_key_id, campaign_id, command_id
       ), retired AS (
         UPDATE api_key SET expires_at = least(expires_at, $5) FROM rotation
         WHERE key_id = old_key_id AND device_id = $2 AND revoked_at IS NULL
       )
       SELECT * FROM rotation`,
      [organizationId, deviceId, keyId, at, endsAt],
    );
    const [rotation] = rows;
    if (rotation === undefined) return null;
    const { old_key_id: oldKeyId, campaign_id: campaignId, command_id: commandId } = rotation;
    await this.#deps.revocations.announce(transaction, { keyId: oldKeyId });
    return { oldKeyId, campaignId, commandId };
  }
}

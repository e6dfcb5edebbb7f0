import type pg from 'pg';
import { guardStore, isUnavailable } from '../drizzle/sqlstate.ts';
import { certificateId } from '../firmware-protocol/keys.ts';
import type { Logger } from '../log.ts';
import type { DevicePrincipal, KeyVerdict } from './principal.ts';
import type { Revocations } from './revocations.ts';

interface DeviceRow {
  organization_id: number;
  organization: string;
  device_id: number;
  device: string;
  is_suspended: boolean;
  is_disabled: boolean;
}

/** Devices that are answered from memory, about 300 bytes each; the longest unused are read again. */
const REMEMBERED_MAX = 50_000;

/**
 * Says which device a client certificate speaks for. The certificate itself was checked by the TLS
 * listener; what it names may not exist, or not be let in. Devices that are let in are answered from
 * memory until a revocation, whosever it is; others cost one query.
 */
export class CertificateLookup {
  readonly #pool: pg.Pool;
  readonly #log: Logger;
  readonly #active = new Map<string, DeviceRow>();
  /** Counts revocations, so that what was read before one is not remembered after it. */
  #generation = 0;

  constructor(pool: pg.Pool, revocations: Revocations, log: Logger) {
    this.#pool = pool;
    this.#log = log;
    const forget = (): void => {
      this.#generation += 1;
      this.#active.clear();
    };
    revocations.onRevoked(({ keyId }) => {
      if (keyId === undefined) forget();
    });
    revocations.onRecheck(forget);
  }

  /** Those of these devices that would be let in now. @throws {StoreUnavailableError} */
  async activeDeviceIds(deviceIds: readonly number[]): Promise<Set<number>> {
    const { rows } = await guardStore(
      this.#pool.query<{ device_id: number }>(
        `SELECT device_id FROM device JOIN organization USING (organization_id)
         WHERE device_id = ANY($1) AND disabled_at IS NULL AND suspended_at IS NULL`,
        [deviceIds],
      ),
    );
    return new Set(rows.map((row) => row.device_id));
  }

  /**
   * Never rejects: a database that is away is the refusal `unavailable`.
   * @param identity `organization/device`.
   * @param fingerprint SHA-256 of the certificate in hex; its start stands for the key id.
   */
  async verify(identity: string, fingerprint: string): Promise<KeyVerdict> {
    try {
      const row = this.#recall(identity) ?? (await this.#read(identity));
      if (row === undefined) return { ok: false, reason: 'unknown' };
      const principal = principalOf(row, fingerprint);
      if (row.is_suspended) return { ok: false, reason: 'suspended', principal };
      if (row.is_disabled) return { ok: false, reason: 'disabled', principal };
      return { ok: true, principal };
    } catch (err) {
      if (!isUnavailable(err)) this.#log.error({ err }, 'certificate lookup failed');
      return { ok: false, reason: 'unavailable' };
    }
  }

  #recall(identity: string): DeviceRow | undefined {
    const row = this.#active.get(identity);
    if (row === undefined) return undefined;
    this.#active.delete(identity);
    this.#active.set(identity, row);
    return row;
  }

  async #read(identity: string): Promise<DeviceRow | undefined> {
    const generation = this.#generation;
    const [row] = (await this.#find(identity)).rows;
    const isActive = row !== undefined && !row.is_suspended && !row.is_disabled;
    if (!isActive || generation !== this.#generation) return row;
    for (const oldest of this.#active.keys()) {
      if (this.#active.size < REMEMBERED_MAX) break;
      this.#active.delete(oldest);
    }
    this.#active.set(identity, row);
    return row;
  }

  #find(identity: string): Promise<pg.QueryResult<DeviceRow>> {
    const [organization = '', device = ''] = identity.split('/');
    return guardStore(
      this.#pool.query<DeviceRow>({
        name: 'find_certified_device',
        text: `SELECT organization.organization_id, organization.slug AS organization,
                      device.device_id, device.slug AS device,
                      organization.suspended_at IS NOT NULL AS is_suspended,
                      device.disabled_at IS NOT NULL AS is_disabled
               FROM device JOIN organization USING (organization_id)
               WHERE organization.slug = $1 AND device.slug = $2`,
        values: [organization, device],
      }),
    );
  }
}

function principalOf(row: DeviceRow, fingerprint: string): DevicePrincipal {
  return {
    kind: 'device',
    organizationId: row.organization_id,
    organization: row.organization,
    deviceId: row.device_id,
    device: row.device,
    keyId: certificateId(fingerprint),
    expiresAt: null,
  };
}

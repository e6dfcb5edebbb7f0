import type pg from 'pg';
import { guardStore, isUnavailable } from '../drizzle/sqlstate.ts';
import type { Logger } from '../log.ts';
import type { DevicePrincipal, KeyVerdict } from './principal.ts';

interface DeviceRow {
  organization_id: number;
  organization: string;
  device_id: number;
  device: string;
  is_suspended: boolean;
  is_disabled: boolean;
}

/**
 * Says which device a client certificate speaks for. The certificate itself was checked by the TLS
 * listener; what it names may not exist, or not be let in. Costs one query.
 */
export class CertificateLookup {
  readonly #pool: pg.Pool;
  readonly #log: Logger;

  constructor(pool: pg.Pool, log: Logger) {
    this.#pool = pool;
    this.#log = log;
  }

  /**
   * Never rejects: a database that is away is the refusal `unavailable`.
   * @param identity `organization/device`.
   * @param fingerprint SHA-256 of the certificate in hex; its start stands for the key id.
   */
  async verify(identity: string, fingerprint: string): Promise<KeyVerdict> {
    try {
      const [row] = (await this.#find(identity)).rows;
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

/** Key ids of certificates begin so; no key's public part does. */
const CERTIFICATE_PREFIX = 'x509:';

function principalOf(row: DeviceRow, fingerprint: string): DevicePrincipal {
  return {
    kind: 'device',
    organizationId: row.organization_id,
    organization: row.organization,
    deviceId: row.device_id,
    device: row.device,
    keyId: `${CERTIFICATE_PREFIX}${fingerprint.slice(0, 16)}`,
  };
}

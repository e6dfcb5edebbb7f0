import type pg from 'pg';
import { guardStore } from '../drizzle/sqlstate.ts';
import { SCOPES, type Scope } from '../firmware-protocol/contract.ts';
import type { KeyKind } from '../firmware-protocol/keys.ts';
import type { Principal } from './principal.ts';

/** What the database says of a key. */
export interface KeyRecord {
  readonly principal: Principal;
  readonly secretHash: Buffer;
  /** Null: the key is valid for who has the secret, until it expires. */
  readonly fault: 'revoked' | 'disabled' | 'suspended' | null;
  /** It takes the place of another and was never used: its first use has to be noted before it counts. */
  readonly isPending: boolean;
}

/** Ids that one query asks for. */
const BATCH_IDS_MAX = 500;
/** Queries at once; more would only take connections of the pool from the API. */
const QUERIES_MAX = 2;

interface Waiter {
  readonly resolve: (record: KeyRecord | null) => void;
  readonly reject: (error: unknown) => void;
}

interface KeyRow {
  key_id: string;
  kind: KeyKind;
  secret_hash: Buffer;
  organization_id: number;
  organization: string;
  device_id: number | null;
  device: string | null;
  scopes: string[];
  devices: string[] | null;
  expires_at: Date | null;
  is_pending: boolean;
  is_revoked: boolean;
  is_disabled: boolean;
  is_suspended: boolean;
}

/**
 * Reads keys by their public id. Ids that are asked for at once, or while queries are under way, go
 * together in the next query, one id once: a fleet that reconnects costs a few queries, not one for
 * each device. A question never joins a query that was sent before it: that might be older than a
 * revocation.
 */
export class KeyLookup {
  readonly #pool: pg.Pool;
  #waiting = new Map<string, Waiter[]>();
  #queries = 0;
  #isScheduled = false;

  constructor(pool: pg.Pool) {
    this.#pool = pool;
  }

  /**
   * @returns null when there is no such key.
   * @throws {StoreUnavailableError} when the database is away.
   */
  find(keyId: string): Promise<KeyRecord | null> {
    return new Promise((resolve, reject) => {
      const waiters = this.#waiting.get(keyId);
      if (waiters === undefined) this.#waiting.set(keyId, [{ resolve, reject }]);
      else waiters.push({ resolve, reject });
      this.#schedule();
    });
  }

  /** After the sockets that have news now were read: they ask together. */
  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#drain();
    });
  }

  #drain(): void {
    if (this.#queries >= QUERIES_MAX || this.#waiting.size === 0) return;
    const batch = this.#takeBatch();
    this.#queries += 1;
    void this.#answer(batch).finally(() => {
      this.#queries -= 1;
      this.#drain();
    });
  }

  #takeBatch(): Map<string, Waiter[]> {
    if (this.#waiting.size <= BATCH_IDS_MAX) {
      const all = this.#waiting;
      this.#waiting = new Map();
      return all;
    }
    const batch = new Map([...this.#waiting].slice(0, BATCH_IDS_MAX));
    for (const keyId of batch.keys()) this.#waiting.delete(keyId);
    return batch;
  }

  async #answer(batch: ReadonlyMap<string, readonly Waiter[]>): Promise<void> {
    try {
      const records = await this.#select([...batch.keys()]);
      for (const [keyId, waiters] of batch) {
        for (const waiter of waiters) waiter.resolve(records.get(keyId) ?? null);
      }
    } catch (error) {
      for (const waiters of batch.values()) for (const waiter of waiters) waiter.reject(error);
    }
  }

  async #select(keyIds: readonly string[]): Promise<Map<string, KeyRecord>> {
    const { rows } = await guardStore(
      this.#pool.query<KeyRow>({
        name: 'find_keys',
        text: `SELECT api_key.key_id, api_key.kind, api_key.secret_hash,
                      organization.organization_id, organization.slug AS organization,
                      device.device_id, device.slug AS device,
                      api_key.scopes, api_key.devices, api_key.expires_at,
                      api_key.replaces_key_id IS NOT NULL AND api_key.activated_at IS NULL
                        AS is_pending,
                      api_key.revoked_at IS NOT NULL AS is_revoked,
                      device.disabled_at IS NOT NULL AS is_disabled,
                      organization.suspended_at IS NOT NULL AS is_suspended
               FROM api_key
               JOIN organization ON organization.organization_id = api_key.organization_id
               LEFT JOIN device ON device.device_id = api_key.device_id
               WHERE api_key.key_id = ANY($1)`,
        values: [keyIds],
      }),
    );
    return new Map(rows.map((row) => [row.key_id, recordOf(row)]));
  }
}

function recordOf(row: KeyRow): KeyRecord {
  return {
    principal: principalOf(row),
    secretHash: row.secret_hash,
    fault: faultOf(row),
    isPending: row.is_pending,
  };
}

function principalOf(row: KeyRow): Principal {
  const common = {
    organizationId: row.organization_id,
    organization: row.organization,
    keyId: row.key_id,
  };
  const expiresAt = row.expires_at?.getTime() ?? null;
  if (row.kind === 'integrator') {
    const scopes = row.scopes.filter(isScope);
    return { kind: 'integrator', ...common, scopes, devices: row.devices, expiresAt };
  }
  if (row.kind === 'claim') return { kind: 'claim', ...common, expiresAt };
  return row.device_id === null || row.device === null
    ? { kind: 'admin', ...common }
    : { kind: 'device', ...common, deviceId: row.device_id, device: row.device, expiresAt };
}

const knownScopes: ReadonlySet<string> = new Set(SCOPES);

/** A scope of a newer version gives nothing here. */
function isScope(text: string): text is Scope {
  return knownScopes.has(text);
}

function faultOf(row: KeyRow): KeyRecord['fault'] {
  if (row.is_revoked) return 'revoked';
  if (row.is_suspended) return 'suspended';
  return row.is_disabled ? 'disabled' : null;
}

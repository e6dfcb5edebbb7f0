import { cutPage, type Page } from '../../drizzle/page.ts';
import {
  inOrganization,
  type TenantDatabase,
  type Transaction,
} from '../../drizzle/transaction.ts';
import { ClaimKeyLimitError } from '../../command-errors.ts';
import { KeyNotFoundError } from '../../errors.ts';
import { endKey, insertKey, isKeyId } from '../api-keys.ts';
import { writeAudit } from '../audit.ts';
import type { Author } from '../devices.ts';
import type { Revocations } from '../revocations.ts';

/** What boards with a claim key may make of themselves. */
export interface ClaimKeyRules {
  /** Devices that may be made with it. */
  readonly quota: number;
  readonly expiresAt: Date;
  /** Of the devices that are made. */
  readonly deviceType: string | null;
  readonly tags: readonly string[];
  /** Models that may claim; null: any. */
  readonly models: readonly string[] | null;
  /** A person has to agree to each board. */
  readonly needsApproval: boolean;
}

/** What of a claim key may be changed; what is left out stays. */
export interface ClaimKeyChange {
  readonly quota?: number | undefined;
  readonly expiresAt?: Date | undefined;
  readonly needsApproval?: boolean | undefined;
}

/** A claim key as it may be shown. */
export interface ClaimKey extends ClaimKeyRules {
  /** Public part of the key. */
  readonly keyId: string;
  readonly name: string;
  /** Devices that were made with it. */
  readonly claimed: number;
  readonly createdAt: Date;
  readonly lastUsedAt: Date | null;
  readonly revokedAt: Date | null;
}

/** A claim key that was just made, with the text that is shown this once. */
export interface NewClaimKey extends ClaimKey {
  readonly key: string;
  /** Slug of the organization. */
  readonly organization: string;
}

/** The claim keys of organizations. Every function asks for the organization and sees no other. */
export interface ClaimKeys {
  /** @throws {ClaimKeyLimitError} */
  create(author: Author, wanted: ClaimKeyRules & { readonly name: string }): Promise<NewClaimKey>;
  /** In the order of creation, those after the key `after`, revoked and expired ones too. */
  list(query: {
    organizationId: number;
    limit: number;
    after: string | null;
  }): Promise<Page<ClaimKey>>;
  /** @throws {KeyNotFoundError} */
  get(organizationId: number, keyId: string): Promise<ClaimKey>;
  /** Boards that are connected with it connect again. @throws {KeyNotFoundError} */
  update(author: Author, keyId: string, change: ClaimKeyChange): Promise<ClaimKey>;
  /**
   * Ends a claim key for good; devices that were made with it stay. Again it changes nothing.
   * @throws {KeyNotFoundError}
   */
  revoke(author: Author, keyId: string): Promise<void>;
}

/** What {@link createClaimKeys} needs. */
export interface ClaimKeysDeps {
  readonly database: TenantDatabase;
  readonly revocations: Revocations;
  /** Most claim keys of one organization that are neither revoked nor expired. */
  readonly keysMax: number;
}

interface ClaimKeyRow {
  key_id: string;
  name: string;
  quota: number;
  claimed: number;
  device_type: string | null;
  tags: string[];
  models: string[] | null;
  needs_approval: boolean;
  expires_at: Date;
  created_at: Date;
  last_used_at: Date | null;
  revoked_at: Date | null;
}

const SELECT = `
  SELECT key_id, name, quota, claimed, device_type, tags, models, needs_approval, expires_at,
         created_at, last_used_at, revoked_at
  FROM api_key JOIN claim_policy USING (key_id)
  WHERE api_key.organization_id = $1 AND api_key.kind = 'claim'`;

/** Every function throws {@link StoreUnavailableError} when the database is away. */
export function createClaimKeys({ database, revocations, keysMax }: ClaimKeysDeps): ClaimKeys {
  return {
    create: (author, wanted) =>
      inOrganization(database, author.organizationId, (transaction) =>
        createKey(transaction, author, wanted, keysMax),
      ),

    list: ({ organizationId, limit, after }) =>
      inOrganization(database, organizationId, async ({ client }) => {
        const { rows } = await client.query<ClaimKeyRow>(
          `${SELECT} AND ($2::text IS NULL OR (created_at, key_id) >
               (SELECT created_at, key_id FROM api_key WHERE key_id = $2 AND organization_id = $1))
           ORDER BY created_at, key_id LIMIT $3`,
          [organizationId, after, limit + 1],
        );
        return cutPage(rows.map(claimKeyOf), limit);
      }),

    get: (organizationId, keyId) =>
      inOrganization(database, organizationId, (transaction) =>
        getKey(transaction, organizationId, keyId),
      ),

    async update(author, keyId, change) {
      const updated = await inOrganization(database, author.organizationId, async (transaction) => {
        const after = await updateKey(transaction, author, keyId, change);
        await revocations.announce(transaction, { keyId });
        return after;
      });
      revocations.tell({ keyId });
      return updated;
    },

    async revoke(author, keyId) {
      await inOrganization(database, author.organizationId, async (transaction) => {
        const before = await getKey(transaction, author.organizationId, keyId, 'FOR UPDATE');
        if (before.revokedAt !== null) return;
        await endKey(transaction, author, { keyId, subject: `key/${keyId}` });
        await revocations.announce(transaction, { keyId });
      });
      revocations.tell({ keyId });
    },
  };
}

async function createKey(
  transaction: Transaction,
  author: Author,
  { name, ...rules }: ClaimKeyRules & { readonly name: string },
  keysMax: number,
): Promise<NewClaimKey> {
  const { organizationId } = author;
  const organization = await assertBelowLimit(transaction, organizationId, keysMax);
  const { expiresAt, quota, deviceType, tags, models, needsApproval } = rules;
  const claim = { expiresAt };
  const made = await insertKey(transaction, author, { deviceId: null, device: null, name, claim });
  const { keyId, key } = made;
  await transaction.client.query(
    `INSERT INTO claim_policy
       (key_id, organization_id, quota, device_type, tags, models, needs_approval)
     VALUES ($1, $2, $3, $4, $5, $6, $7)`,
    [keyId, organizationId, quota, deviceType, tags, models, needsApproval],
  );
  await writeAudit(transaction.orm, {
    ...author,
    action: 'claim_policy.create',
    subject: `key/${keyId}`,
    change: { ...rules },
  });
  return { ...(await getKey(transaction, organizationId, keyId)), key, organization };
}

/** @returns the slug of the organization. */
async function assertBelowLimit(
  { client }: Transaction,
  organizationId: number,
  keysMax: number,
): Promise<string> {
  // One at a time for each organization, so that the count stays true until COMMIT.
  const { rows: owners } = await client.query<{ slug: string }>(
    'SELECT slug FROM organization WHERE organization_id = $1 FOR NO KEY UPDATE',
    [organizationId],
  );
  const { rows } = await client.query<{ active: number }>(
    `SELECT count(*)::int4 AS active FROM api_key
     WHERE organization_id = $1 AND kind = 'claim' AND revoked_at IS NULL AND expires_at > now()`,
    [organizationId],
  );
  if ((rows[0]?.active ?? 0) >= keysMax) throw new ClaimKeyLimitError(keysMax);
  return owners[0]?.slug ?? '';
}

async function updateKey(
  transaction: Transaction,
  author: Author,
  keyId: string,
  change: ClaimKeyChange,
): Promise<ClaimKey> {
  const { organizationId } = author;
  const before = await getKey(transaction, organizationId, keyId, 'FOR UPDATE');
  const after = {
    quota: change.quota ?? before.quota,
    needsApproval: change.needsApproval ?? before.needsApproval,
    expiresAt: change.expiresAt ?? before.expiresAt,
  };
  const { client } = transaction;
  await client.query('UPDATE claim_policy SET quota = $2, needs_approval = $3 WHERE key_id = $1', [
    keyId,
    after.quota,
    after.needsApproval,
  ]);
  await client.query('UPDATE api_key SET expires_at = $2 WHERE key_id = $1', [
    keyId,
    after.expiresAt,
  ]);
  await writeAudit(transaction.orm, {
    ...author,
    action: 'claim_policy.update',
    subject: `key/${keyId}`,
    change: after,
  });
  return { ...before, ...after };
}

async function getKey(
  { client }: Transaction,
  organizationId: number,
  keyId: string,
  lock: '' | 'FOR UPDATE' = '',
): Promise<ClaimKey> {
  if (!isKeyId(keyId)) throw new KeyNotFoundError(keyId);
  const { rows } = await client.query<ClaimKeyRow>(`${SELECT} AND key_id = $2 ${lock}`, [
    organizationId,
    keyId,
  ]);
  const [row] = rows;
  if (row === undefined) throw new KeyNotFoundError(keyId);
  return claimKeyOf(row);
}

function claimKeyOf(row: ClaimKeyRow): ClaimKey {
  return {
    keyId: row.key_id,
    name: row.name,
    quota: row.quota,
    claimed: row.claimed,
    deviceType: row.device_type,
    tags: row.tags,
    models: row.models,
    needsApproval: row.needs_approval,
    expiresAt: row.expires_at,
    createdAt: row.created_at,
    lastUsedAt: row.last_used_at,
    revokedAt: row.revoked_at,
  };
}

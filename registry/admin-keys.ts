import { and, asc, eq, isNull, sql, type SQL } from 'drizzle-orm';
import type { NodePgDatabase } from 'drizzle-orm/node-postgres';
import { LastAdminKeyError } from '../command-errors.ts';
import { cutPage, type Page } from '../drizzle/page.ts';
import { apiKey, organization } from '../drizzle/schema.ts';
import { inOrganization, type TenantDatabase } from '../drizzle/transaction.ts';
import { KeyLimitError, KeyNotFoundError } from '../errors.ts';
import { endKey, insertKey, keyOf, type ApiKey, type NewApiKey } from './api-keys.ts';
import type { Author } from './devices.ts';
import type { Revocations } from './revocations.ts';

/** Active admin keys of one organization: one for each person and program that works with all of it. */
export const ADMIN_KEYS_MAX = 100;

/** The keys of admins. Every function asks for the organization and sees no other. */
export interface AdminKeys {
  /** @throws {KeyLimitError} */
  create(author: Author, name: string): Promise<NewApiKey>;
  /** All that there are, in the order of creation, revoked ones too, those after the key `after`. */
  list(query: {
    organizationId: number;
    limit: number;
    after: string | null;
  }): Promise<Page<ApiKey>>;
  /**
   * Ends a key for good; the last one that is active stays, or nobody could make another. Revoking it
   * again changes nothing. @throws {KeyNotFoundError} @throws {LastAdminKeyError}
   */
  revoke(author: Author, keyId: string): Promise<void>;
}

/** Every function throws {@link StoreUnavailableError} when the database is away. */
export function createAdminKeys(database: TenantDatabase, revocations: Revocations): AdminKeys {
  return {
    create: (author, name) =>
      inOrganization(database, author.organizationId, async (transaction) => {
        const active = await holdActive(transaction.orm, author.organizationId);
        if (active.size >= ADMIN_KEYS_MAX) throw new KeyLimitError('admins', ADMIN_KEYS_MAX);
        return insertKey(transaction, author, { deviceId: null, device: null, name });
      }),

    list: ({ organizationId, limit, after }) =>
      inOrganization(database, organizationId, async ({ orm }) => {
        const isNext =
          after === null
            ? undefined
            : sql`(created_at, key_id) >
                  (SELECT created_at, key_id FROM api_key WHERE key_id = ${after})`;
        const rows = await orm
          .select()
          .from(apiKey)
          .where(and(isAdminKeyOf(organizationId), isNext))
          .orderBy(asc(apiKey.createdAt), asc(apiKey.keyId))
          .limit(limit + 1);
        return cutPage(rows.map(keyOf), limit);
      }),

    async revoke(author, keyId) {
      const { organizationId } = author;
      await inOrganization(database, organizationId, async (transaction) => {
        const { orm } = transaction;
        const active = await holdActive(orm, organizationId);
        const [row] = await orm
          .select()
          .from(apiKey)
          .where(and(isAdminKeyOf(organizationId), eq(apiKey.keyId, keyId)));
        if (row === undefined) throw new KeyNotFoundError(keyId);
        if (row.revokedAt !== null) return;
        if (active.size === 1) throw new LastAdminKeyError();
        await endKey(transaction, author, { keyId, subject: `key/${keyId}` });
        await revocations.announce(transaction, { keyId });
      });
      revocations.tell({ keyId });
    },
  };
}

/** One at a time for each organization, so that what is found stays true until COMMIT. */
async function holdActive(orm: NodePgDatabase, organizationId: number): Promise<Set<string>> {
  await orm
    .select({ id: organization.organizationId })
    .from(organization)
    .where(eq(organization.organizationId, organizationId))
    .for('no key update');
  const rows = await orm
    .select({ keyId: apiKey.keyId })
    .from(apiKey)
    .where(and(isAdminKeyOf(organizationId), isNull(apiKey.revokedAt)));
  return new Set(rows.map(({ keyId }) => keyId));
}

function isAdminKeyOf(organizationId: number): SQL | undefined {
  return and(eq(apiKey.organizationId, organizationId), eq(apiKey.kind, 'admin'));
}

import { and, asc, count, eq, gt, inArray, isNull, or, sql, type SQL } from 'drizzle-orm';
import type { NodePgDatabase } from 'drizzle-orm/node-postgres';
import { cutPage, type Page } from '../drizzle/page.ts';
import { apiKey, device, organization } from '../drizzle/schema.ts';
import { guardStore } from '../drizzle/sqlstate.ts';
import { inOrganization, type TenantDatabase, type Transaction } from '../drizzle/transaction.ts';
import { DeviceNotFoundError, KeyLimitError, KeyNotFoundError } from '../errors.ts';
import {
  endKey,
  insertKey,
  isKeyId,
  keyOf,
  type ApiKey,
  type IntegratorGrant,
} from './api-keys.ts';
import type { Author } from './devices.ts';
import type { Revocations } from './revocations.ts';

/** An integrator's key as it may be shown. A scope of a newer version is shown as it is. */
export interface IntegratorKey extends ApiKey {
  readonly scopes: readonly string[];
  /** Slugs of the only devices that it may see; null for all of the organization. */
  readonly devices: readonly string[] | null;
  /** Null: never. */
  readonly expiresAt: Date | null;
}

/** An integrator's key that was just made, with the text that is shown this once. */
export interface NewIntegratorKey extends IntegratorKey {
  readonly key: string;
}

/** What a new integrator's key is for. */
export interface WantedIntegratorKey extends IntegratorGrant {
  readonly name: string;
}

/** The keys of integrators. Every function asks for the organization and sees no other. */
export interface IntegratorKeys {
  /**
   * Makes a key. The devices that it is limited to must exist now; one that is deleted and made
   * again under its name is within the limits again.
   * @throws {DeviceNotFoundError} @throws {KeyLimitError}
   */
  create(author: Author, wanted: WantedIntegratorKey): Promise<NewIntegratorKey>;
  /** In the order of creation, those after the key `after`, revoked and expired ones too. */
  list(query: {
    organizationId: number;
    limit: number;
    after: string | null;
  }): Promise<Page<IntegratorKey>>;
  /** @throws {KeyNotFoundError} */
  get(organizationId: number, keyId: string): Promise<IntegratorKey>;
  /**
   * Ends a key for good, with its live connections. Revoking it again changes nothing.
   * @throws {KeyNotFoundError}
   */
  revoke(author: Author, keyId: string): Promise<void>;
}

/** What {@link createIntegratorKeys} needs. */
export interface IntegratorKeysDeps {
  readonly database: TenantDatabase;
  readonly revocations: Revocations;
  /** Most keys of one organization that are neither revoked nor expired. */
  readonly keysMax: number;
}

/** Every function throws {@link StoreUnavailableError} when the database is away. */
export function createIntegratorKeys(deps: IntegratorKeysDeps): IntegratorKeys {
  const { database, revocations, keysMax } = deps;
  return {
    create: (author, wanted) =>
      inOrganization(database, author.organizationId, (transaction) =>
        createKey(transaction, author, wanted, keysMax),
      ),

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
          .where(and(isIntegratorKeyOf(organizationId), isNext))
          .orderBy(asc(apiKey.createdAt), asc(apiKey.keyId))
          .limit(limit + 1);
        return cutPage(rows.map(integratorKeyOf), limit);
      }),

    get: (organizationId, keyId) =>
      inOrganization(database, organizationId, async ({ orm }) =>
        integratorKeyOf(await getRow(orm, organizationId, keyId)),
      ),

    async revoke(author, keyId) {
      await inOrganization(database, author.organizationId, async (transaction) => {
        const row = await getRow(transaction.orm, author.organizationId, keyId, true);
        if (row.revokedAt !== null) return;
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
  { name, ...grant }: WantedIntegratorKey,
  keysMax: number,
): Promise<NewIntegratorKey> {
  const { orm } = transaction;
  await assertDevicesExist(orm, author.organizationId, grant.devices);
  await assertBelowLimit(orm, author.organizationId, keysMax);
  const made = await insertKey(transaction, author, { deviceId: null, device: null, name, grant });
  return { ...made, ...grant };
}

async function assertDevicesExist(
  orm: NodePgDatabase,
  organizationId: number,
  slugs: readonly string[] | null,
): Promise<void> {
  if (slugs === null) return;
  const rows = await orm
    .select({ slug: device.slug })
    .from(device)
    .where(and(eq(device.organizationId, organizationId), inArray(device.slug, [...slugs])));
  const found = new Set(rows.map(({ slug }) => slug));
  const missing = slugs.find((slug) => !found.has(slug));
  if (missing !== undefined) throw new DeviceNotFoundError(missing);
}

async function assertBelowLimit(
  orm: NodePgDatabase,
  organizationId: number,
  keysMax: number,
): Promise<void> {
  // One at a time for each organization, so that the count stays true until COMMIT.
  await orm
    .select({ id: organization.organizationId })
    .from(organization)
    .where(eq(organization.organizationId, organizationId))
    .for('no key update');
  const isLasting = or(isNull(apiKey.expiresAt), gt(apiKey.expiresAt, sql`now()`));
  const [counted] = await orm
    .select({ active: count() })
    .from(apiKey)
    .where(and(isIntegratorKeyOf(organizationId), isNull(apiKey.revokedAt), isLasting));
  if ((counted?.active ?? 0) >= keysMax) throw new KeyLimitError('organization', keysMax);
}

async function getRow(
  orm: Pick<NodePgDatabase, 'select'>,
  organizationId: number,
  keyId: string,
  isLocked = false,
): Promise<typeof apiKey.$inferSelect> {
  if (!isKeyId(keyId)) throw new KeyNotFoundError(keyId);
  const query = orm
    .select()
    .from(apiKey)
    .where(and(isIntegratorKeyOf(organizationId), eq(apiKey.keyId, keyId)));
  const [row] = await guardStore(isLocked ? query.for('update') : query);
  if (row === undefined) throw new KeyNotFoundError(keyId);
  return row;
}

function isIntegratorKeyOf(organizationId: number): SQL | undefined {
  return and(eq(apiKey.organizationId, organizationId), eq(apiKey.kind, 'integrator'));
}

function integratorKeyOf(row: typeof apiKey.$inferSelect): IntegratorKey {
  const { scopes, devices, expiresAt } = row;
  return { ...keyOf(row), scopes, devices, expiresAt };
}

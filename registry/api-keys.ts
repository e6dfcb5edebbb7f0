import { and, asc, count, eq, gt, isNull, or, sql } from 'drizzle-orm';
import type { NodePgDatabase } from 'drizzle-orm/node-postgres';
import { cutPage, type Page } from '../drizzle/page.ts';
import { apiKey } from '../drizzle/schema.ts';
import { guardStore } from '../drizzle/sqlstate.ts';
import { inOrganization, type TenantDatabase, type Transaction } from '../drizzle/transaction.ts';
import { KeyLimitError, KeyNotFoundError } from '../errors.ts';
import type { Scope } from '../firmware-protocol/contract.ts';
import { makeKey, secretHash, type KeyKind } from '../firmware-protocol/keys.ts';
import { writeAudit } from './audit.ts';
import { getDeviceRow } from './device-row.ts';
import type { Author } from './devices.ts';
import type { Revocations } from './revocations.ts';

/** Active keys of one device: one in use, one to change to, and some for forgotten boards. */
export const DEVICE_KEYS_MAX = 10;

/** A key as it may be shown. Its secret is not kept. */
export interface ApiKey {
  /** Public part of the key. */
  readonly keyId: string;
  readonly name: string;
  readonly createdAt: Date;
  /** To the minute; null when never. */
  readonly lastUsedAt: Date | null;
  readonly revokedAt: Date | null;
  /** When it ends by itself: a key that was never used, or whose place another has taken; null: never. */
  readonly expiresAt: Date | null;
  /** Of a key that takes the place of another: when it was used first. */
  readonly activatedAt: Date | null;
  /** The key whose place it takes: the one before it, or the claim key that it was made with. */
  readonly replacesKeyId: string | null;
}

/**
 * Where a key is. `pending`: it takes the place of another and was never used. `retiring`: another has taken
 * its place, and it ends soon.
 */
export type KeyState = 'pending' | 'active' | 'retiring' | 'expired' | 'revoked';

/** Where the key of a device is at a time, in ms since 1970. */
export function keyStateOf(key: ApiKey, nowMs: number): KeyState {
  const { revokedAt, expiresAt, activatedAt, replacesKeyId } = key;
  if (revokedAt !== null) return 'revoked';
  if (expiresAt !== null && expiresAt.getTime() <= nowMs) return 'expired';
  if (replacesKeyId !== null && activatedAt === null) return 'pending';
  return expiresAt === null ? 'active' : 'retiring';
}

/** A key that was just made, with the text that is shown this once. */
export interface NewApiKey extends ApiKey {
  readonly key: string;
}

/** A device's name within the organization that asks. */
export interface DeviceRef {
  readonly organizationId: number;
  readonly device: string;
}

/** The keys of devices. Every function asks for the organization and sees no other. */
export interface ApiKeys {
  /** @throws {DeviceNotFoundError} @throws {KeyLimitError} */
  createForDevice(author: Author, device: string, name: string): Promise<NewApiKey>;
  /** In the order of creation, those after the key `after`. @throws {DeviceNotFoundError} */
  list(query: DeviceRef & { limit: number; after: string | null }): Promise<Page<ApiKey>>;
  /** @throws {DeviceNotFoundError} @throws {KeyNotFoundError} */
  get(device: DeviceRef, keyId: string): Promise<ApiKey>;
  /**
   * Ends a key for good, with its live connection. Revoking it again changes nothing.
   * @throws {DeviceNotFoundError} @throws {KeyNotFoundError}
   */
  revoke(author: Author, device: string, keyId: string): Promise<void>;
  /**
   * Those of these keys that would be accepted now; for looking at live connections again. Keys of devices
   * that retire are left out: their connections have to learn when they end, and do when they come again.
   */
  activeKeyIds(keyIds: readonly string[]): Promise<Set<string>>;
}

/** What {@link createApiKeys} needs. */
export interface ApiKeysDeps {
  readonly database: TenantDatabase;
  readonly revocations: Revocations;
}

/** Every function throws {@link StoreUnavailableError} when the database is away. */
export function createApiKeys({ database, revocations }: ApiKeysDeps): ApiKeys {
  return {
    createForDevice: (author, device, name) =>
      inOrganization(database, author.organizationId, async (transaction) => {
        const { orm } = transaction;
        const { deviceId } = await getDeviceRow(orm, author.organizationId, device, true);
        await assertBelowLimit(orm, deviceId);
        return insertKey(transaction, author, { deviceId, device, name });
      }),

    list: ({ organizationId, device, limit, after }) =>
      inOrganization(database, organizationId, async ({ orm }) => {
        const { deviceId } = await getDeviceRow(orm, organizationId, device);
        const isNext =
          after === null
            ? undefined
            : sql`(created_at, key_id) >
                  (SELECT created_at, key_id FROM api_key WHERE key_id = ${after})`;
        const rows = await orm
          .select()
          .from(apiKey)
          .where(and(eq(apiKey.deviceId, deviceId), isNext))
          .orderBy(asc(apiKey.createdAt), asc(apiKey.keyId))
          .limit(limit + 1);
        return cutPage(rows.map(keyOf), limit);
      }),

    get: ({ organizationId, device }, keyId) =>
      inOrganization(database, organizationId, async ({ orm }) => {
        const { deviceId } = await getDeviceRow(orm, organizationId, device);
        return keyOf(await getKeyRow(orm, deviceId, keyId));
      }),

    async revoke(author, device, keyId) {
      await inOrganization(database, author.organizationId, (transaction) =>
        revokeKey(transaction, author, { device, keyId }, revocations),
      );
      revocations.tell({ keyId });
    },

    async activeKeyIds(keyIds) {
      const { rows } = await guardStore(
        database.pool.query<{ key_id: string }>(
          `SELECT key_id FROM api_key
           JOIN organization USING (organization_id)
           LEFT JOIN device ON device.device_id = api_key.device_id
           WHERE key_id = ANY($1) AND revoked_at IS NULL AND suspended_at IS NULL
             AND disabled_at IS NULL AND (expires_at IS NULL OR expires_at > now())
             AND NOT (kind = 'device' AND expires_at IS NOT NULL)`,
          [keyIds],
        ),
      );
      return new Set(rows.map((row) => row.key_id));
    },
  };
}

/** What is given to an integrator with a key. */
export interface IntegratorGrant {
  readonly scopes: readonly Scope[];
  /** Slugs of the only devices that it may see; null for all of the organization. */
  readonly devices: readonly string[] | null;
  /** Null: never. */
  readonly expiresAt: Date | null;
}

/**
 * The device of a new key, or null and null: then the key is an integrator's when it is granted
 * something, else an admin's.
 */
export interface KeyOwner {
  readonly deviceId: number | null;
  readonly device: string | null;
  readonly name: string;
  readonly grant?: IntegratorGrant;
  /** Of a device: the key whose place it is to take. It ends by itself if it is not used by `expiresAt`. */
  readonly successor?: { readonly replacesKeyId: string; readonly expiresAt: Date | null };
  /** It is for boards that claim a name, until then. */
  readonly claim?: { readonly expiresAt: Date };
}

/** Makes a key in a transaction, without a look at the limit. */
export async function insertKey(
  { orm }: Transaction,
  { organizationId, actor }: Author,
  owner: KeyOwner,
): Promise<NewApiKey> {
  const { deviceId, device, name, grant, successor, claim } = owner;
  const kind = kindOf(owner);
  const made = makeKey(kind);
  const keyId = made.publicId;
  const hash = secretHash(made.secret);
  // Of 62^8 ids one taken twice is no chance but a broken generator: the primary key fails it.
  const owned = { keyId, organizationId, deviceId, kind, name, secretHash: hash };
  const values = {
    ...owned,
    ...(grant === undefined ? {} : columnsOf(grant)),
    ...successor,
    ...claim,
  };
  const [row] = await orm.insert(apiKey).values(values).returning();
  if (row === undefined) throw new Error('an inserted key was not returned');
  await writeAudit(orm, {
    organizationId,
    actor,
    action: 'key.create',
    subject: device === null ? `key/${keyId}` : `device/${device}/key/${keyId}`,
    change: { name, ...grant, ...successor, ...claim },
  });
  return { ...keyOf(row), key: made.key };
}

function kindOf({ device, grant, claim }: KeyOwner): KeyKind {
  if (device !== null) return 'device';
  if (claim !== undefined) return 'claim';
  return grant === undefined ? 'admin' : 'integrator';
}

function columnsOf({ scopes, devices, expiresAt }: IntegratorGrant) {
  return { scopes: [...scopes], devices: devices === null ? null : [...devices], expiresAt };
}

/** @throws {KeyLimitError} when the device, whose row is locked, has as many keys in use as it may. */
export async function assertBelowLimit(orm: NodePgDatabase, deviceId: number): Promise<void> {
  const isLasting = or(isNull(apiKey.expiresAt), gt(apiKey.expiresAt, sql`now()`));
  const [counted] = await orm
    .select({ active: count() })
    .from(apiKey)
    .where(and(eq(apiKey.deviceId, deviceId), isNull(apiKey.revokedAt), isLasting));
  if ((counted?.active ?? 0) >= DEVICE_KEYS_MAX) throw new KeyLimitError('device', DEVICE_KEYS_MAX);
}

async function revokeKey(
  transaction: Transaction,
  author: Author,
  { device, keyId }: { device: string; keyId: string },
  revocations: Revocations,
): Promise<void> {
  const { orm } = transaction;
  const { deviceId } = await getDeviceRow(orm, author.organizationId, device, true);
  const row = await getKeyRow(orm, deviceId, keyId);
  if (row.revokedAt !== null) return;
  await endKey(transaction, author, { keyId, subject: `device/${device}/key/${keyId}` });
  await revocations.announce(transaction, { keyId });
}

/** Marks a key as revoked and writes it to the audit trail. The caller announces it. */
export async function endKey(
  { orm }: Transaction,
  { organizationId, actor }: Author,
  { keyId, subject }: { readonly keyId: string; readonly subject: string },
): Promise<void> {
  await orm
    .update(apiKey)
    .set({ revokedAt: sql`now()` })
    .where(eq(apiKey.keyId, keyId));
  await writeAudit(orm, { organizationId, actor, action: 'key.revoke', subject });
}

async function getKeyRow(
  orm: Pick<NodePgDatabase, 'select'>,
  deviceId: number,
  keyId: string,
): Promise<typeof apiKey.$inferSelect> {
  if (!isKeyId(keyId)) throw new KeyNotFoundError(keyId);
  const [row] = await guardStore(
    orm
      .select()
      .from(apiKey)
      .where(and(eq(apiKey.deviceId, deviceId), eq(apiKey.keyId, keyId))),
  );
  if (row === undefined) throw new KeyNotFoundError(keyId);
  return row;
}

/** Whether a text can be the public part of a key; any other is no parameter for SQL. */
export function isKeyId(text: string): boolean {
  return /^[0-9A-Za-z]{8}$/.test(text);
}

/** What may be shown of a row. */
export function keyOf(row: typeof apiKey.$inferSelect): ApiKey {
  const { keyId, name, createdAt, lastUsedAt, revokedAt } = row;
  const { expiresAt, activatedAt, replacesKeyId } = row;
  return { keyId, name, createdAt, lastUsedAt, revokedAt, expiresAt, activatedAt, replacesKeyId };
}

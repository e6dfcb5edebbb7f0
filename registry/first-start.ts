import { and, eq } from 'drizzle-orm';
import type { Database } from '../drizzle/database.ts';
import { apiKey, device, organization } from '../drizzle/schema.ts';
import { guardStore } from '../drizzle/sqlstate.ts';
import { inTransaction, type Transaction } from '../drizzle/transaction.ts';
import { parseKey } from '../firmware-protocol/keys.ts';
import { insertKey } from './api-keys.ts';
import { readCredentials, writeCredentials, type Credentials } from './credentials-file.ts';

const ORGANIZATION = 'demo';
const DEVICE = 'first';
const KEY_NAME = 'first start';
const ACTOR = 'puback';
/** Names the lock that lets one of two programs that start at once be first. */
const FIRST_START_LOCK = 7_082_264;

/** What {@link ensureCredentials} needs. */
export interface FirstStartDeps {
  readonly database: Pick<Database, 'pool' | 'orm'>;
  /** Folder of `credentials.json`; made when missing. */
  readonly dataDir: string;
  /** Make new keys though the organization exists: when the file is missing, or in any case. */
  readonly reissue: 'never' | 'when missing' | 'always';
}

/** How the first start, or a later one, went. */
export interface FirstStart {
  /** The organization was made now. */
  readonly created: boolean;
  /** The keys in them were made now, so they are worth printing. */
  readonly issued: boolean;
  /** Null: there is an organization, but no file that has its keys, and none were to be made. */
  readonly credentials: Credentials | null;
}

/**
 * Sees to it that somebody can log in. In an empty database it makes the organization `demo`, an
 * admin key and the device `first` with a key, in one transaction, and then the file. A crash
 * between COMMIT and the file is healed at the next start with `reissue`, which makes a new pair of
 * keys; of the pair that nobody has seen only hashes are left. A file with keys of another database
 * counts as missing.
 *
 * The addresses are not known before the listeners listen: they stay as they are in the file, or
 * empty, until {@link writeAddresses}.
 * @throws {StoreUnavailableError} @throws {FileUnusableError}
 */
export async function ensureCredentials(deps: FirstStartDeps): Promise<FirstStart> {
  const { database, dataDir, reissue } = deps;
  const found = await readCredentials(dataDir);
  const isOurs = found !== null && (await isKnown(database, found.adminKey));
  const keys = await inTransaction(database.pool, async (transaction) => {
    await transaction.client.query('SELECT pg_advisory_xact_lock($1)', [FIRST_START_LOCK]);
    const [anyOrganization] = await transaction.orm
      .select({ id: organization.organizationId })
      .from(organization)
      .limit(1);
    if (anyOrganization === undefined) return { created: true, ...(await createDemo(transaction)) };
    if (reissue === 'never' || (isOurs && reissue === 'when missing')) return null;
    const reissued = await reissueKeys(transaction);
    return reissued === null ? null : { created: false, ...reissued };
  });
  if (keys === null) return { created: false, issued: false, credentials: isOurs ? found : null };
  const credentials: Credentials = {
    organization: ORGANIZATION,
    adminKey: keys.adminKey,
    device: DEVICE,
    deviceKey: keys.deviceKey,
    mqttUrl: '',
    httpUrl: '',
  };
  await writeCredentials(dataDir, credentials);
  return { created: keys.created, issued: true, credentials };
}

/**
 * Writes the file again with the addresses of this start, once the listeners listen.
 * @returns what the file holds now. @throws {FileUnusableError}
 */
export async function writeAddresses(
  dataDir: string,
  credentials: Credentials,
  addresses: { readonly mqttUrl: string; readonly httpUrl: string },
): Promise<Credentials> {
  const refreshed = {
    ...credentials,
    mqttUrl: addresses.mqttUrl,
    httpUrl: addresses.httpUrl,
  };
  await writeCredentials(dataDir, refreshed);
  return refreshed;
}

interface KeyPair {
  readonly adminKey: string;
  readonly deviceKey: string;
}

/** Whether the file belongs to this database. A revoked key belongs too: revoked it shall stay. */
async function isKnown({ orm }: Pick<Database, 'orm'>, adminKey: string): Promise<boolean> {
  const parsed = parseKey(adminKey);
  if (parsed === null) return false;
  const rows = await guardStore(
    orm.select({ id: apiKey.keyId }).from(apiKey).where(eq(apiKey.keyId, parsed.publicId)),
  );
  return rows.length > 0;
}

async function createDemo(transaction: Transaction): Promise<KeyPair> {
  const [row] = await transaction.orm
    .insert(organization)
    .values({ slug: ORGANIZATION, displayName: 'Demo' })
    .returning();
  if (row === undefined) throw new Error('an inserted organization was not returned');
  return issuePair(transaction, row.organizationId);
}

/** Null when there is no organization `demo`: then somebody has made the keys of others. */
async function reissueKeys(transaction: Transaction): Promise<KeyPair | null> {
  const { orm } = transaction;
  const [row] = await orm.select().from(organization).where(eq(organization.slug, ORGANIZATION));
  if (row === undefined) return null;
  return issuePair(transaction, row.organizationId);
}

async function issuePair(transaction: Transaction, organizationId: number): Promise<KeyPair> {
  const author = { organizationId, actor: ACTOR };
  const deviceId = await ensureDevice(transaction, organizationId);
  const admin = await insertKey(transaction, author, {
    deviceId: null,
    device: null,
    name: KEY_NAME,
  });
  const first = await insertKey(transaction, author, { deviceId, device: DEVICE, name: KEY_NAME });
  return { adminKey: admin.key, deviceKey: first.key };
}

async function ensureDevice({ orm }: Transaction, organizationId: number): Promise<number> {
  await orm
    .insert(device)
    .values({ organizationId, slug: DEVICE, displayName: 'First device' })
    .onConflictDoNothing();
  const [row] = await orm
    .select({ deviceId: device.deviceId })
    .from(device)
    .where(and(eq(device.organizationId, organizationId), eq(device.slug, DEVICE)));
  if (row === undefined) throw new Error('device "first" is neither there nor can it be made');
  return row.deviceId;
}

import {
  inOrganization,
  type TenantDatabase,
  type Transaction,
} from '../../drizzle/transaction.ts';
import { makeUuidV7 } from '../../drizzle/uuid-v7.ts';
import { DeviceExistsError, DeviceLimitError } from '../../errors.ts';
import { makeKey, secretHash, type MadeKey } from '../../firmware-protocol/keys.ts';
import type { DeviceChanges } from '../device-changes.ts';
import type { Author } from '../devices.ts';

/** Devices that are to be made together. */
export interface WantedBatch {
  /** Slugs, each once. */
  readonly devices: readonly string[];
  readonly type: string | null;
  readonly tags: readonly string[];
}

/** A device with the key that is shown this once. */
export interface BatchDevice {
  /** Slug. */
  readonly device: string;
  /** `organization/device`. */
  readonly user: string;
  /** Public part of the key. */
  readonly keyId: string;
  /** The key itself. */
  readonly key: string;
}

/** Devices that a factory makes. */
export interface DeviceBatches {
  /**
   * Makes devices with a key each, all or none.
   * @returns them in the order that was asked for.
   * @throws {DeviceExistsError} @throws {DeviceLimitError} @throws {StoreUnavailableError}
   */
  create(author: Author, wanted: WantedBatch): Promise<readonly BatchDevice[]>;
}

/** What {@link createDeviceBatches} needs. */
export interface DeviceBatchesDeps {
  readonly database: TenantDatabase;
  readonly changes: DeviceChanges;
  /** Most devices of one organization. */
  readonly devicesMax: number;
}

/** What the key of a device from a factory is called. */
const KEY_NAME = 'factory';

interface MadeDevice {
  readonly deviceId: number;
  readonly device: string;
  readonly made: MadeKey;
}

/** Makes the part that makes devices in batches. */
export function createDeviceBatches(deps: DeviceBatchesDeps): DeviceBatches {
  const { database, changes, devicesMax } = deps;
  return {
    async create(author, wanted) {
      const { organizationId } = author;
      const { organization, devices } = await inOrganization(
        database,
        organizationId,
        async (transaction) => {
          const slug = await lockOrganization(transaction, organizationId);
          await assertRoom(transaction, organizationId, wanted.devices.length, devicesMax);
          const ids = await insertDevices(transaction, organizationId, wanted);
          const made = wanted.devices.map((device) => ({
            deviceId: idOf(ids, device),
            device,
            made: makeKey('device'),
          }));
          await insertKeys(transaction, organizationId, made);
          await audit(transaction, author, wanted, made);
          return { organization: slug, devices: made };
        },
      );
      for (const { deviceId } of devices)
        changes.tell({ organizationId, deviceId, isDeleted: false });
      return devices.map(({ device, made }) => ({
        device,
        user: `${organization}/${device}`,
        keyId: made.publicId,
        key: made.key,
      }));
    },
  };
}

/** One at a time for each organization, so that the count stays true until COMMIT. @returns its slug. */
async function lockOrganization({ client }: Transaction, organizationId: number): Promise<string> {
  const { rows } = await client.query<{ slug: string }>(
    'SELECT slug FROM organization WHERE organization_id = $1 FOR NO KEY UPDATE',
    [organizationId],
  );
  const [row] = rows;
  if (row === undefined) throw new Error('an organization that asks is not there');
  return row.slug;
}

async function assertRoom(
  { client }: Transaction,
  organizationId: number,
  wanted: number,
  devicesMax: number,
): Promise<void> {
  const { rows } = await client.query<{ devices: number }>(
    'SELECT count(*)::int4 AS devices FROM device WHERE organization_id = $1',
    [organizationId],
  );
  if ((rows[0]?.devices ?? 0) + wanted > devicesMax) throw new DeviceLimitError(devicesMax);
}

/** @returns ids by slug. */
async function insertDevices(
  { client }: Transaction,
  organizationId: number,
  { devices, type, tags }: WantedBatch,
): Promise<Map<string, number>> {
  const { rows } = await client.query<{ device_id: number; slug: string }>(
    `INSERT INTO device (organization_id, slug, display_name, tags, device_type)
     SELECT $1, slug, slug, $3, $4 FROM unnest($2::text[]) AS slug
     ON CONFLICT DO NOTHING RETURNING device_id, slug`,
    [organizationId, devices, tags, type],
  );
  return new Map(rows.map((row) => [row.slug, row.device_id]));
}

function idOf(ids: ReadonlyMap<string, number>, device: string): number {
  const deviceId = ids.get(device);
  if (deviceId === undefined) throw new DeviceExistsError(device);
  return deviceId;
}

async function insertKeys(
  { client }: Transaction,
  organizationId: number,
  devices: readonly MadeDevice[],
): Promise<void> {
  await client.query(
    `INSERT INTO api_key (key_id, organization_id, device_id, kind, name, secret_hash)
     SELECT key_id, $1, device_id, 'device', $2, secret_hash
     FROM unnest($3::text[], $4::int4[], $5::bytea[]) AS made (key_id, device_id, secret_hash)`,
    [
      organizationId,
      KEY_NAME,
      devices.map(({ made }) => made.publicId),
      devices.map(({ deviceId }) => deviceId),
      devices.map(({ made }) => secretHash(made.secret)),
    ],
  );
}

/** Two entries for each device, as when they are made one by one. */
async function audit(
  { client }: Transaction,
  { organizationId, actor }: Author,
  { type, tags }: WantedBatch,
  devices: readonly MadeDevice[],
): Promise<void> {
  const entries = devices.flatMap(({ device, made }) => [
    {
      action: 'device.create',
      subject: `device/${device}`,
      change: { displayName: device, tags, type, reportIntervalMs: null },
    },
    {
      action: 'key.create',
      subject: `device/${device}/key/${made.publicId}`,
      change: { name: KEY_NAME },
    },
  ]);
  await client.query(
    `INSERT INTO audit_event (audit_event_id, organization_id, actor, action, subject, change)
     SELECT id, $1, $2, entry->>'action', entry->>'subject', entry->'change'
     FROM unnest($3::uuid[], $4::jsonb[]) AS made (id, entry)`,
    [
      organizationId,
      actor,
      entries.map(() => makeUuidV7(Date.now())),
      entries.map((entry) => JSON.stringify(entry)),
    ],
  );
}

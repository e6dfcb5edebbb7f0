import { and, asc, count, eq, gt, sql } from 'drizzle-orm';
import { cutPage, type Page } from '../drizzle/page.ts';
import { apiKey, device, organization } from '../drizzle/schema.ts';
import {
  inOrganization,
  runUnbounded,
  type TenantDatabase,
  type Transaction,
} from '../drizzle/transaction.ts';
import { guardStore } from '../drizzle/sqlstate.ts';
import { DeviceExistsError, DeviceLimitError } from '../errors.ts';
import { writeAudit } from './audit.ts';
import type { DeviceChanges } from './device-changes.ts';
import { getDeviceRow, type DeviceRow } from './device-row.ts';
import type { Revocation, Revocations } from './revocations.ts';

/** A device as people know it. */
export interface Device {
  readonly deviceId: number;
  readonly slug: string;
  readonly displayName: string;
  readonly tags: readonly string[];
  /** What kind of device it is; null when nobody has said. */
  readonly type: string | null;
  /** Longest time that it is meant to let pass between two readings; null: not declared. */
  readonly reportIntervalMs: number | null;
  /** Its keys are refused. */
  readonly isDisabled: boolean;
  /** What it sends goes to quarantine; it stays connected. */
  readonly isQuarantined: boolean;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/**
 * In whose name something is done: the organization it happens in, and the key for the audit trail.
 */
export interface Author {
  readonly organizationId: number;
  readonly actor: string;
}

/** What a new device is given. */
export interface NewDevice {
  readonly slug: string;
  /** The slug when left out. */
  readonly displayName?: string | undefined;
  readonly tags?: readonly string[] | undefined;
  readonly type?: string | null | undefined;
  readonly reportIntervalMs?: number | null | undefined;
}

/** What of a device may be changed; what is left out stays. */
export interface DeviceChange {
  readonly displayName?: string | undefined;
  readonly tags?: readonly string[] | undefined;
  /** Null takes it away. */
  readonly type?: string | null | undefined;
  /** Null takes it away. */
  readonly reportIntervalMs?: number | null | undefined;
  readonly isDisabled?: boolean | undefined;
  readonly isQuarantined?: boolean | undefined;
}

/** The devices of all organizations. Every function asks for the organization and sees no other. */
export interface Devices {
  /** In the order of slugs, those after `after`. */
  list(query: {
    organizationId: number;
    limit: number;
    after: string | null;
  }): Promise<Page<Device>>;
  /** @throws {DeviceNotFoundError} */
  get(organizationId: number, slug: string): Promise<Device>;
  /** @throws {DeviceExistsError} @throws {DeviceLimitError} */
  create(author: Author, wanted: NewDevice): Promise<Device>;
  /**
   * Disabling ends the live connection. Quarantine holds from the next message on, in this program
   * when the promise resolves and in others within milliseconds. @throws {DeviceNotFoundError}
   */
  update(author: Author, slug: string, change: DeviceChange): Promise<Device>;
  /** Ids of the devices of all organizations that are in quarantine. @throws {StoreUnavailableError} */
  quarantinedIds(): Promise<Set<number>>;
  /**
   * Deletes the device with its keys, readings, quarantine and history of connections, all or
   * nothing. Takes as long as its readings need, minutes for years of them.
   * @throws {DeviceNotFoundError}
   */
  remove(author: Author, slug: string): Promise<void>;
}

/** What {@link createDevices} needs. */
export interface DevicesDeps {
  readonly database: TenantDatabase;
  readonly revocations: Revocations;
  readonly changes: DeviceChanges;
  /** Most devices of one organization. */
  readonly devicesMax: number;
}

/** Every function throws {@link StoreUnavailableError} when the database is away. */
export function createDevices({
  database,
  revocations,
  changes,
  devicesMax,
}: DevicesDeps): Devices {
  return {
    list: ({ organizationId, limit, after }) =>
      inOrganization(database, organizationId, async ({ orm }) => {
        const isNext = after === null ? undefined : gt(device.slug, after);
        const rows = await orm
          .select()
          .from(device)
          .where(and(eq(device.organizationId, organizationId), isNext))
          .orderBy(asc(device.slug))
          .limit(limit + 1);
        return cutPage(rows.map(deviceOf), limit);
      }),

    get: (organizationId, slug) =>
      inOrganization(database, organizationId, async ({ orm }) =>
        deviceOf(await getDeviceRow(orm, organizationId, slug)),
      ),

    async create(author, wanted) {
      const { organizationId } = author;
      const made = await inOrganization(database, organizationId, (transaction) =>
        insertDevice(transaction, author, wanted, devicesMax),
      );
      changes.tell({ organizationId, deviceId: made.deviceId, isDeleted: false });
      return made;
    },

    async update(author, slug, change) {
      const updated = await inOrganization(database, author.organizationId, (transaction) =>
        updateDevice(transaction, author, slug, change, revocations),
      );
      const { deviceId } = updated;
      if (change.isDisabled !== undefined) {
        revocations.tell({ deviceId, isRestored: !change.isDisabled });
      }
      const { isQuarantined } = change;
      if (isQuarantined !== undefined) revocations.tellQuarantine({ deviceId, isQuarantined });
      if (isOfRules(change)) {
        const { organizationId } = author;
        const { reportIntervalMs } = updated;
        changes.tell({ organizationId, deviceId, reportIntervalMs, isDeleted: false });
      }
      return updated;
    },

    async quarantinedIds() {
      const { rows } = await guardStore(
        database.pool.query<{ device_id: number }>(
          'SELECT device_id FROM device WHERE quarantined_at IS NOT NULL',
        ),
      );
      return new Set(rows.map((row) => row.device_id));
    },

    async remove(author, slug) {
      const revocation = await inOrganization(database, author.organizationId, (transaction) =>
        deleteDevice(transaction, author, slug, revocations),
      );
      revocations.tell(revocation);
      const { organizationId } = author;
      changes.tell({ organizationId, deviceId: revocation.deviceId, isDeleted: true });
    },
  };
}

/** Whether rules may have another verdict then. */
function isOfRules({ tags, type, reportIntervalMs }: DeviceChange): boolean {
  return tags !== undefined || type !== undefined || reportIntervalMs !== undefined;
}

/** Makes a device in a transaction, within the bound of its organization. @throws {DeviceExistsError} @throws {DeviceLimitError} */
export async function insertDevice(
  { orm }: Transaction,
  { organizationId, actor }: Author,
  { slug, displayName = slug, tags = [], type = null, reportIntervalMs = null }: NewDevice,
  devicesMax: number,
): Promise<Device> {
  // One at a time for each organization, so that the count stays true until COMMIT.
  await orm
    .select({ id: organization.organizationId })
    .from(organization)
    .where(eq(organization.organizationId, organizationId))
    .for('no key update');
  const [counted] = await orm
    .select({ devices: count() })
    .from(device)
    .where(eq(device.organizationId, organizationId));
  const named = { organizationId, slug, displayName, tags: [...tags] };
  const values = { ...named, deviceType: type, reportIntervalMs };
  const [row] = await orm.insert(device).values(values).onConflictDoNothing().returning();
  if (row === undefined) throw new DeviceExistsError(slug);
  if ((counted?.devices ?? 0) >= devicesMax) throw new DeviceLimitError(devicesMax);
  await writeAudit(orm, {
    organizationId,
    actor,
    action: 'device.create',
    subject: `device/${slug}`,
    change: { displayName, tags, type, reportIntervalMs },
  });
  return deviceOf(row);
}

async function updateDevice(
  transaction: Transaction,
  { organizationId, actor }: Author,
  slug: string,
  { displayName, tags, type, reportIntervalMs, isDisabled, isQuarantined }: DeviceChange,
  revocations: Revocations,
): Promise<Device> {
  const { orm } = transaction;
  const before = await getDeviceRow(orm, organizationId, slug, true);
  const [row] = await orm
    .update(device)
    .set({
      updatedAt: sql`now()`,
      ...(displayName === undefined ? {} : { displayName }),
      ...(tags === undefined ? {} : { tags: [...tags] }),
      ...(type === undefined ? {} : { deviceType: type }),
      ...(reportIntervalMs === undefined ? {} : { reportIntervalMs }),
      ...(isDisabled === undefined ? {} : { disabledAt: since(before.disabledAt, isDisabled) }),
      ...(isQuarantined === undefined
        ? {}
        : { quarantinedAt: since(before.quarantinedAt, isQuarantined) }),
    })
    .where(eq(device.deviceId, before.deviceId))
    .returning();
  if (row === undefined) throw new Error('a locked device is gone');
  if (isDisabled !== undefined) {
    await revocations.announce(transaction, { deviceId: row.deviceId, isRestored: !isDisabled });
  }
  if (isQuarantined !== undefined) {
    await revocations.announceQuarantine(transaction, { deviceId: row.deviceId, isQuarantined });
  }
  await writeAudit(orm, {
    organizationId,
    actor,
    action: 'device.update',
    subject: `device/${slug}`,
    change: {
      displayName,
      tags,
      type,
      reportIntervalMs,
      disabled: isDisabled,
      quarantined: isQuarantined,
    },
  });
  return deviceOf(row);
}

/** Since when something is so: the time of the first change stays. */
function since(before: Date | null, isSo: boolean): Date | null {
  return isSo ? (before ?? new Date()) : null;
}

async function deleteDevice(
  transaction: Transaction,
  { organizationId, actor }: Author,
  slug: string,
  revocations: Revocations,
): Promise<Revocation & { readonly deviceId: number }> {
  const { orm } = transaction;
  const { deviceId } = await getDeviceRow(orm, organizationId, slug, true);
  await runUnbounded(transaction, 'SELECT device_readings_delete($1)', [deviceId]);
  await runUnbounded(transaction, 'DELETE FROM quarantine WHERE device_id = $1', [deviceId]);
  await runUnbounded(transaction, 'DELETE FROM device_event WHERE device_id = $1', [deviceId]);
  await orm.delete(apiKey).where(eq(apiKey.deviceId, deviceId));
  await orm.delete(device).where(eq(device.deviceId, deviceId));
  const [owner] = await orm
    .select({ organization: organization.slug })
    .from(organization)
    .where(eq(organization.organizationId, organizationId));
  const deleted = { organizationId, organization: owner?.organization ?? '', device: slug };
  const revocation = { deviceId, deleted };
  await revocations.announce(transaction, revocation);
  const subject = `device/${slug}`;
  await writeAudit(orm, { organizationId, actor, action: 'device.delete', subject });
  return revocation;
}

function deviceOf(row: DeviceRow): Device {
  return {
    deviceId: row.deviceId,
    slug: row.slug,
    displayName: row.displayName,
    tags: row.tags,
    type: row.deviceType,
    reportIntervalMs: row.reportIntervalMs,
    isDisabled: row.disabledAt !== null,
    isQuarantined: row.quarantinedAt !== null,
    createdAt: row.createdAt,
    updatedAt: row.updatedAt,
  };
}

import { inOrganization, type TenantDatabase, type Transaction } from '../drizzle/transaction.ts';
import { makeUuidV7 } from '../drizzle/uuid-v7.ts';
import { DeviceNotFoundError } from '../errors.ts';
import type { Hello } from '../firmware-protocol/hello.ts';
import { FirmwareNotFoundError, UpdateRefusedError } from '../ota-errors.ts';
import { findFirmware } from './firmware-repository.ts';
import type { Firmware } from './firmware.ts';
import type { OtaAuthor, WriteAudit } from './ports.ts';
import { UPDATE_COLUMNS, UPDATE_FROM, updateOf, type UpdateRow } from './update-store.ts';
import type { DeviceUpdate, NewUpdate } from './update.ts';

/** What {@link beginUpdate} needs. */
export interface UpdateBeginDeps {
  readonly database: TenantDatabase;
  readonly writeAudit: WriteAudit;
  /** Refuses images without a signature. */
  readonly isSignatureRequired: boolean;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/**
 * Notes that a device is to be updated, before it is offered anything.
 * @returns the update, or the one that is under way for the same image and campaign, or that the campaign
 * has had with the device.
 * @throws {DeviceNotFoundError} @throws {FirmwareNotFoundError} @throws {UpdateRefusedError}
 */
export function beginUpdate(
  deps: UpdateBeginDeps,
  author: OtaAuthor,
  wanted: NewUpdate,
): Promise<{ update: DeviceUpdate; isNew: boolean }> {
  return inOrganization(deps.database, author.organizationId, async (transaction) => {
    const { deviceId, hello } = await lockDevice(transaction, author, wanted.device);
    const known = await findKnown(transaction, deviceId, wanted);
    if (known !== null) return { update: known, isNew: false };
    const firmware = await findFirmware(transaction, author.organizationId, wanted.firmwareId);
    if (firmware === null) throw new FirmwareNotFoundError(wanted.firmwareId);
    assertOffered(firmware, deps.isSignatureRequired);
    assertFits(firmware, hello, wanted);
    return insertUpdate(transaction, deps, { author, wanted, deviceId, hello });
  });
}

/** Whether an image may be offered to devices. @throws {UpdateRefusedError} */
export function assertOffered(firmware: Firmware, isSignatureRequired: boolean): void {
  if (firmware.state === 'withdrawn') {
    throw new UpdateRefusedError('withdrawn', 'the image was withdrawn');
  }
  if (firmware.isSignerRevoked) {
    throw new UpdateRefusedError('untrusted', 'the key that signed the image was revoked');
  }
  if (firmware.signature === null && isSignatureRequired) {
    throw new UpdateRefusedError('untrusted', 'the image is not signed');
  }
}

async function lockDevice(
  { client }: Transaction,
  { organizationId }: OtaAuthor,
  slug: string,
): Promise<{ deviceId: number; hello: Hello }> {
  if (slug.includes('\0')) throw new DeviceNotFoundError(slug);
  const { rows } = await client.query<{ device_id: number; hello: Hello | null }>(
    `SELECT device_id, hello FROM device LEFT JOIN device_presence USING (organization_id, device_id)
     WHERE organization_id = $1 AND slug = $2 FOR NO KEY UPDATE OF device`,
    [organizationId, slug],
  );
  const [row] = rows;
  if (row === undefined) throw new DeviceNotFoundError(slug);
  return { deviceId: row.device_id, hello: row.hello ?? {} };
}

async function findKnown(
  { client }: Transaction,
  deviceId: number,
  { firmwareId, campaignId }: NewUpdate,
): Promise<DeviceUpdate | null> {
  const { rows } = await client.query<UpdateRow>(
    `SELECT ${UPDATE_COLUMNS} FROM ${UPDATE_FROM}
     WHERE device_update.device_id = $1
       AND (device_update.ended_at IS NULL OR device_update.campaign_id = $2)
     ORDER BY device_update.ended_at NULLS FIRST`,
    [deviceId, campaignId],
  );
  const updates = rows.map(updateOf);
  const own = updates.find((update) => campaignId !== null && update.campaignId === campaignId);
  if (own !== undefined) return own;
  const open = updates.find(({ endedAt }) => endedAt === null);
  if (open === undefined) return null;
  if (open.firmwareId === firmwareId && campaignId === null) return open;
  throw new UpdateRefusedError(
    'other_update',
    `the device is being updated to ${open.version}; wait for its end, or cancel it`,
  );
}

function assertFits({ model, version }: Firmware, { mdl, fw }: Hello, wanted: NewUpdate): void {
  if (mdl === undefined && !wanted.isForced) {
    throw new UpdateRefusedError(
      'unknown_model',
      'the device has not said its model ("mdl" of hello); "force" updates it all the same',
    );
  }
  if (mdl !== undefined && mdl !== model) {
    throw new UpdateRefusedError('other_model', `the image is for ${model}, the device is ${mdl}`);
  }
  if (fw !== version) return;
  throw new UpdateRefusedError('already_at_version', `the device says that it runs ${fw}`);
}

async function insertUpdate(
  { client, orm }: Transaction,
  { now, writeAudit }: UpdateBeginDeps,
  begun: {
    readonly author: OtaAuthor;
    readonly wanted: NewUpdate;
    readonly deviceId: number;
    readonly hello: Hello;
  },
): Promise<{ update: DeviceUpdate; isNew: boolean }> {
  const { author, wanted, deviceId, hello } = begun;
  const { device, firmwareId, campaignId } = wanted;
  const updateId = makeUuidV7(now());
  await client.query(
    `INSERT INTO device_update (update_id, organization_id, device_id, firmware_id, campaign_id,
                                from_version, state, boot_before, started_at, changed_at)
     VALUES ($1, $2, $3, $4, $5, $6, 'offered', $7, to_timestamp($8::float8 / 1000),
             to_timestamp($8::float8 / 1000))`,
    [
      ...[updateId, author.organizationId, deviceId, firmwareId, campaignId],
      ...[hello.fw ?? null, hello.boot ?? null, now()],
    ],
  );
  const subject = `device/${device}/update/${updateId}`;
  const change = { firmware: firmwareId };
  await writeAudit(orm, { ...author, action: 'update.begin', subject, change });
  const { rows } = await client.query<UpdateRow>(
    `SELECT ${UPDATE_COLUMNS} FROM ${UPDATE_FROM} WHERE update_id = $1`,
    [updateId],
  );
  if (rows[0] === undefined) throw new Error('an update that was just noted is gone');
  return { update: updateOf(rows[0]), isNew: true };
}

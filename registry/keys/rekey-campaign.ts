import { z } from 'zod';
import { inOrganization, type TenantDatabase } from '../../drizzle/transaction.ts';
import { DeviceNotFoundError, RequestInvalidError } from '../../errors.ts';
import { DeviceKeylessError, KeyRotationOpenError } from '../../command-errors.ts';
import type { Author } from '../devices.ts';
import type { KeyRotations } from './key-rotations.ts';
import type { KeyRotation } from './rotation-row.ts';

/** A campaign, as far as changing keys needs to know it. */
export interface RekeyCampaign {
  readonly campaignId: string;
  readonly organizationId: number;
  readonly createdBy: string;
  /** Longest time that a device may take. */
  readonly deviceTimeoutMs: number;
}

/** A device of a campaign. */
export interface RekeyTarget {
  readonly deviceId: number;
  /** Slug. */
  readonly device: string;
}

/** What became of a device whose turn has come. */
export type RekeyBegin =
  | { readonly commandId: string | null; readonly facts: Readonly<Record<string, unknown>> }
  | { readonly skipped: string; readonly detail: string };

/** What has become of a device that was begun with. */
export interface RekeyVerdict {
  readonly deviceId: number;
  readonly state: 'succeeded' | 'failed' | 'skipped';
  readonly code: string;
  readonly detail: string;
}

/** The kind of campaign that changes keys; fits `CampaignKind` of commands/campaign/. */
export interface RekeyCampaignKind {
  readonly kind: 'rekey';
  /** There is nothing to say of it. @throws {RequestInvalidError} */
  prepare(author: Author, request: unknown): Promise<Readonly<Record<string, unknown>>>;
  /** Asks a device to change its key; twice is the same as once. @throws what `rotate` throws. */
  begin(campaign: RekeyCampaign, target: RekeyTarget): Promise<RekeyBegin>;
  /** Succeeded: the device has used its new key. */
  judge(campaign: RekeyCampaign, targets: readonly RekeyTarget[]): Promise<readonly RekeyVerdict[]>;
  /** Ends keys that were not used; a device that has used its new one goes on with it. */
  withdraw(campaign: RekeyCampaign, targets: readonly RekeyTarget[]): Promise<void>;
}

/** What the kind works with. */
export interface RekeyCampaignDeps {
  readonly database: TenantDatabase;
  readonly rotations: Pick<KeyRotations, 'rotate' | 'list' | 'withdraw'>;
}

/** Why a `sys.rekey` has ended without a new key. */
interface FailedCommand {
  readonly state: string;
  readonly code: string | null;
  readonly message: string | null;
}

const requestSchema = z.strictObject({}).nullish();

/** Makes the kind. Every function throws {@link StoreUnavailableError} when the database is away. */
export function createRekeyCampaign({ database, rotations }: RekeyCampaignDeps): RekeyCampaignKind {
  return {
    kind: 'rekey',

    async prepare(_author, request) {
      if (!requestSchema.safeParse(request).success) {
        throw new RequestInvalidError(['body/request: a campaign of kind rekey takes none']);
      }
      return {};
    },

    begin: (campaign, target) => begin(rotations, campaign, target),

    async judge({ organizationId, campaignId }, targets) {
      const found = await rotations.list(
        organizationId,
        targets.map(({ deviceId }) => deviceId),
      );
      const own = found.filter((rotation) => rotation.campaignId === campaignId);
      const failures = await readFailures(database, organizationId, own);
      const byDevice = new Map(own.map((rotation) => [rotation.deviceId, rotation]));
      return targets.flatMap(({ deviceId }) => {
        const rotation = byDevice.get(deviceId);
        const failure = failures.get(rotation?.commandId ?? '');
        const verdict = verdictOf(rotation, failure);
        return verdict === null ? [] : { deviceId, ...verdict };
      });
    },

    async withdraw({ organizationId, campaignId, createdBy }, targets) {
      const author = { organizationId, actor: createdBy };
      for (const { device } of targets) {
        await rotations.withdraw(author, device, campaignId).catch((error: unknown) => {
          if (!(error instanceof DeviceNotFoundError)) throw error;
        });
      }
    },
  };
}

async function begin(
  rotations: Pick<KeyRotations, 'rotate'>,
  { organizationId, campaignId, createdBy, deviceTimeoutMs }: RekeyCampaign,
  { device }: RekeyTarget,
): Promise<RekeyBegin> {
  const author = { organizationId, actor: createdBy };
  try {
    const request = { device, campaignId, ttlMs: deviceTimeoutMs };
    const { commandId, askedAt, oldKeyId } = await rotations.rotate(author, request);
    return { commandId, facts: { oldKeyId, askedAt: askedAt.toISOString() } };
  } catch (error) {
    if (error instanceof DeviceNotFoundError) return skipped('device_gone', error);
    if (error instanceof DeviceKeylessError) return skipped('no_key', error);
    if (error instanceof KeyRotationOpenError) return skipped('rotation_open', error);
    throw error;
  }
}

function skipped(code: string, { message }: Error): RekeyBegin {
  return { skipped: code, detail: message };
}

/** Null: not known yet. */
function verdictOf(
  rotation: KeyRotation | undefined,
  failure: FailedCommand | undefined,
): Omit<RekeyVerdict, 'deviceId'> | null {
  if (rotation === undefined) {
    return { state: 'skipped', code: 'rolled_back', detail: 'the change was rolled back' };
  }
  if (rotation.activatedAt !== null) {
    return { state: 'succeeded', code: 'rekeyed', detail: `uses ${rotation.newKeyId}` };
  }
  if (rotation.state === 'expired') {
    const what = rotation.issuedAt === null ? 'did not ask for a key' : 'did not use its new key';
    return { state: 'failed', code: 'expired', detail: `${what} in time` };
  }
  // A device that was given a key may not have come round to answer the command.
  if (failure === undefined || rotation.issuedAt !== null) return null;
  const { state, code, message } = failure;
  return { state: 'failed', code: code ?? state, detail: message ?? `sys.rekey is ${state}` };
}

/** Those of the commands that have ended in another way than with success. */
async function readFailures(
  database: TenantDatabase,
  organizationId: number,
  rotations: readonly KeyRotation[],
): Promise<Map<string, FailedCommand>> {
  const commandIds = rotations
    .filter(({ activatedAt }) => activatedAt === null)
    .flatMap(({ commandId }) => commandId ?? []);
  if (commandIds.length === 0) return new Map();
  const rows = await inOrganization(database, organizationId, async ({ client }) => {
    const found = await client.query<FailedCommand & { command_id: string }>(
      `SELECT command_id, state, code, message FROM command
       WHERE organization_id = $1 AND command_id = ANY($2)
         AND state IN ('failed', 'rejected', 'expired', 'cancelled', 'unknown')`,
      [organizationId, commandIds],
    );
    return found.rows;
  });
  return new Map(rows.map((row) => [row.command_id, row]));
}

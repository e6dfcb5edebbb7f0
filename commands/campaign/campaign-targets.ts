import { createHash } from 'node:crypto';
import type { Transaction } from '../../drizzle/transaction.ts';
import { CampaignInvalidError } from '../../command-errors.ts';
import type { CampaignTargets, NewCampaign, SkippedTarget } from './campaign.ts';
import { sizeWaves } from './campaign-policy.ts';

/** A device that a campaign is going to have. */
export interface PlannedDevice {
  readonly deviceId: number;
  readonly device: string;
}

/** Devices in their order, wave by wave, and those that are left out. */
export interface PlannedTargets {
  readonly waves: readonly (readonly PlannedDevice[])[];
  readonly skipped: readonly (SkippedTarget & PlannedDevice)[];
  /** Types of the devices in waves; null: some have none. */
  readonly types: readonly (string | null)[];
}

/** A device that matches. */
interface MatchingDevice extends PlannedDevice {
  readonly deviceType: string | null;
  readonly isDisabled: boolean;
  /** A campaign that changes the device's key or firmware and has not ended with it. */
  readonly busyCampaign: string | null;
}

/** What decides about targets besides themselves. */
export interface TargetChoice {
  readonly organizationId: number;
  readonly devicesMax: number;
  /** The same seed gives the same order. */
  readonly seed: string;
  readonly isOnline: (deviceId: number) => boolean;
}

const NAMES_SHOWN = 5;

/**
 * Finds the devices of a campaign as they are now, and puts them in order: canaries that were named, then
 * those that are online, then the others; among themselves, and behind the canary, by chance.
 * @throws {CampaignInvalidError} of devices that do not exist, of none at all and of too many.
 */
export async function planTargets(
  transaction: Transaction,
  wanted: NewCampaign,
  choice: TargetChoice,
): Promise<PlannedTargets> {
  const matching = await findMatching(transaction, wanted, choice);
  assertNamed(wanted, matching);
  const isExclusive = wanted.kind !== 'command';
  const skipped = matching.flatMap((device) => skippedOf(device, isExclusive));
  const left = new Set(skipped.map(({ deviceId }) => deviceId));
  const usable = matching.filter(({ deviceId }) => !left.has(deviceId));
  if (usable.length === 0) throw new CampaignInvalidError(nothingLeft(skipped));
  const types = [...new Set(usable.map(({ deviceType }) => deviceType))];
  return { waves: splitWaves(inOrder(usable, wanted, choice), wanted), skipped, types };
}

async function findMatching(
  { client }: Transaction,
  { targets }: NewCampaign,
  { organizationId, devicesMax }: TargetChoice,
): Promise<readonly MatchingDevice[]> {
  const { devices, tags, types }: CampaignTargets = targets;
  const { rows } = await client.query<MatchingDevice>(
    `SELECT device_id AS "deviceId", slug AS device, device_type AS "deviceType", disabled_at IS NOT NULL AS "isDisabled",
       (SELECT campaign.campaign_id::text
        FROM campaign_device JOIN campaign USING (campaign_id)
        WHERE campaign_device.device_id = device.device_id
          AND campaign_device.organization_id = $1 AND campaign.organization_id = $1
          AND campaign_device.state IN ('waiting', 'active')
          AND campaign.kind IN ('rekey', 'update') AND campaign.ended_at IS NULL
        LIMIT 1) AS "busyCampaign"
     FROM device
     WHERE organization_id = $1 AND ($2::text[] IS NULL OR slug = ANY($2))
       AND ($3::text[] IS NULL OR tags && $3) AND ($4::text[] IS NULL OR device_type = ANY($4))
     ORDER BY slug LIMIT $5`,
    [organizationId, devices, tags, types, devicesMax + 1],
  );
  if (rows.length > devicesMax) {
    throw new CampaignInvalidError(
      `more than ${devicesMax} devices match, which is the limit (CAMPAIGN_DEVICES_MAX)`,
    );
  }
  return rows;
}

/** Who names a device means it: one that does not exist, or does not match, is a slip. */
function assertNamed(
  { targets, canaryDevices }: NewCampaign,
  matching: readonly MatchingDevice[],
): void {
  const found = new Set(matching.map(({ device }) => device));
  const missing = [...(targets.devices ?? []), ...canaryDevices].filter((slug) => !found.has(slug));
  if (missing.length === 0) return;
  const shown = missing.slice(0, NAMES_SHOWN).map((slug) => JSON.stringify(slug.slice(0, 64)));
  const more = missing.length > NAMES_SHOWN ? ` and ${missing.length - NAMES_SHOWN} more` : '';
  throw new CampaignInvalidError(
    `no device of the targets is ${shown.join(', ')}${more}; a device must match every member of "targets"`,
  );
}

function skippedOf(
  { deviceId, device, isDisabled, busyCampaign }: MatchingDevice,
  isExclusive: boolean,
): (SkippedTarget & PlannedDevice)[] {
  if (isDisabled) {
    return [{ deviceId, device, code: 'device_disabled', detail: 'the device is disabled' }];
  }
  if (!isExclusive || busyCampaign === null) return [];
  const detail = `campaign ${busyCampaign} is to change the device, or does so`;
  return [{ deviceId, device, code: 'in_other_campaign', detail }];
}

function nothingLeft([first, ...others]: readonly SkippedTarget[]): string {
  if (first === undefined) return 'no device matches the targets';
  const more = others.length === 0 ? '' : ` and ${others.length} more`;
  return `no device is left: of ${first.device}, ${first.detail}${more}`;
}

function inOrder(
  devices: readonly MatchingDevice[],
  { policy, canaryDevices }: NewCampaign,
  { seed, isOnline }: TargetChoice,
): PlannedDevice[] {
  const keyed = devices
    .map(({ deviceId, device }) => ({ deviceId, device, key: chanceOf(seed, device) }))
    .toSorted((a, b) => (a.key < b.key ? -1 : 1));
  const named = new Set(canaryDevices);
  const rank = (one: PlannedDevice): number => {
    if (named.has(one.device)) return 0;
    return isOnline(one.deviceId) ? 1 : 2;
  };
  // Sorting is stable: among themselves they stay as chance has put them.
  const candidates = policy.canary > 0 ? keyed.toSorted((a, b) => rank(a) - rank(b)) : keyed;
  const canaries = candidates.slice(0, policy.canary);
  const taken = new Set(canaries.map(({ deviceId }) => deviceId));
  const others = keyed.filter(({ deviceId }) => !taken.has(deviceId));
  return [...canaries, ...others].map(({ deviceId, device }) => ({ deviceId, device }));
}

function chanceOf(seed: string, device: string): string {
  return createHash('sha256').update(`${seed}/${device}`).digest('hex');
}

function splitWaves(
  devices: readonly PlannedDevice[],
  { policy }: NewCampaign,
): (readonly PlannedDevice[])[] {
  let begin = 0;
  return sizeWaves(policy, devices.length).map((size) => {
    const wave = devices.slice(begin, begin + size);
    begin += size;
    return wave;
  });
}

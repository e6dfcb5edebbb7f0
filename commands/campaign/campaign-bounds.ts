import type { Transaction } from '../../drizzle/transaction.ts';
import { CampaignInvalidError, CampaignLimitError } from '../../command-errors.ts';
import type { NewCampaign } from './campaign.ts';
import { WAVES_MAX } from './campaign-policy.ts';
import type { PlannedTargets } from './campaign-targets.ts';

/** Bounds of campaigns. */
export interface CampaignLimits {
  /** Campaigns of an organization that have not ended. */
  readonly openMax: number;
  /** Devices of a campaign. */
  readonly devicesMax: number;
  /** `concurrent` of a policy. */
  readonly concurrentMax: number;
  /** `ratePerMinute` of a policy. */
  readonly ratePerMinuteMax: number;
  /** How long campaigns are kept after their end. */
  readonly ageMaxMs: number;
}

/** @throws {CampaignInvalidError} of a policy that is above the bounds of the installation. */
export function assertPolicy(
  { policy, canaryDevices }: NewCampaign,
  { concurrentMax, ratePerMinuteMax }: CampaignLimits,
): void {
  const { concurrent, ratePerMinute, canary } = policy;
  const fault = [
    concurrent > concurrentMax &&
      `"concurrent" is above ${concurrentMax}, which is the limit (CAMPAIGN_CONCURRENT_MAX)`,
    ratePerMinute > ratePerMinuteMax &&
      `"ratePerMinute" is above ${ratePerMinuteMax}, which is the limit (CAMPAIGN_RATE_PER_MINUTE_MAX)`,
    canaryDevices.length > canary && 'there are more canaries than "canary" says',
  ].find((found) => found !== false);
  if (fault !== undefined) throw new CampaignInvalidError(fault);
}

/** @throws {CampaignInvalidError} of more waves than anybody could follow. */
export function assertWaves({ waves }: PlannedTargets): void {
  if (waves.length <= WAVES_MAX + 1) return;
  throw new CampaignInvalidError(
    `that makes ${waves.length - 1} waves, ${WAVES_MAX} may be: raise "waveDevices"`,
  );
}

/** @throws {CampaignLimitError} of an organization that has as many open campaigns as it may. */
export async function assertRoom(
  { client }: Transaction,
  organizationId: number,
  { openMax }: CampaignLimits,
): Promise<void> {
  const { rows } = await client.query<{ open: number }>(
    'SELECT count(*)::int4 AS open FROM campaign WHERE organization_id = $1 AND ended_at IS NULL',
    [organizationId],
  );
  if ((rows[0]?.open ?? 0) >= openMax) throw new CampaignLimitError(openMax);
}

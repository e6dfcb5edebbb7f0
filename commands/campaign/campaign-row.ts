import type { Transaction } from '../../drizzle/transaction.ts';
import { CampaignNotFoundError } from '../../command-errors.ts';
import {
  CAMPAIGN_DEVICE_STATES,
  type Campaign,
  type CampaignDetail,
  type CampaignDeviceState,
  type DeviceCounts,
  type WaveCounts,
} from './campaign.ts';

/** Columns of `campaign`, as {@link Campaign} names them; without counts. */
export const CAMPAIGN_COLUMNS = `campaign.campaign_id AS "campaignId",
  campaign.organization_id AS "organizationId", campaign.kind, campaign.name, campaign.state,
  campaign.request, campaign.policy, campaign.wave, campaign.wave_started_at AS "waveStartedAt",
  campaign.stop_code AS "stopCode", campaign.stop_reason AS "stopReason",
  campaign.created_at AS "createdAt", campaign.created_by AS "createdBy",
  campaign.updated_at AS "updatedAt", campaign.ended_at AS "endedAt"`;

/** The same with `counts`: numbers of devices by state. */
export const COUNTED_CAMPAIGN = `SELECT ${CAMPAIGN_COLUMNS}, counted.counts
  FROM campaign CROSS JOIN LATERAL (
    SELECT json_build_object(${CAMPAIGN_DEVICE_STATES.map(
      (state) => `'${state}', count(*) FILTER (WHERE campaign_device.state = '${state}')`,
    ).join(', ')}) AS counts
    FROM campaign_device
    WHERE campaign_device.campaign_id = campaign.campaign_id
      AND campaign_device.organization_id = campaign.organization_id
  ) AS counted`;

/** A row of `campaign`. */
export type CampaignRow = Omit<Campaign, 'counts'>;

/** How many devices of a wave are in a state. */
interface CountRow {
  readonly wave: number;
  readonly state: CampaignDeviceState;
  readonly devices: number;
}

/**
 * A campaign of an organization.
 * @param isLocked holds its row until the transaction ends. @throws {CampaignNotFoundError}
 */
export async function getCampaignRow(
  { client }: Transaction,
  organizationId: number,
  campaignId: string,
  isLocked = false,
): Promise<CampaignRow> {
  const { rows } = await client.query<CampaignRow>(
    `SELECT ${CAMPAIGN_COLUMNS} FROM campaign WHERE organization_id = $1 AND campaign_id = $2
     ${isLocked ? 'FOR NO KEY UPDATE' : ''}`,
    [organizationId, campaignId],
  );
  const [row] = rows;
  if (row === undefined) throw new CampaignNotFoundError(campaignId);
  return row;
}

/** A campaign of an organization, with the counts of its waves. @throws {CampaignNotFoundError} */
export async function getCampaignDetail(
  transaction: Transaction,
  organizationId: number,
  campaignId: string,
): Promise<CampaignDetail> {
  const campaign = await getCampaignRow(transaction, organizationId, campaignId);
  const { rows } = await transaction.client.query<CountRow>(
    `SELECT wave, state, count(*)::int4 AS devices FROM campaign_device
     WHERE organization_id = $1 AND campaign_id = $2 GROUP BY wave, state`,
    [organizationId, campaignId],
  );
  const waves = countWaves(rows);
  return { ...campaign, waves, counts: sumCounts(waves) };
}

/** Counts by wave, in the order of waves. */
export function countWaves(rows: readonly CountRow[]): WaveCounts[] {
  const waves = new Map<number, WaveCounts>();
  for (const { wave, state, devices } of rows) {
    waves.set(wave, { ...(waves.get(wave) ?? { wave, ...NO_DEVICES }), [state]: devices });
  }
  return [...waves.values()].toSorted((a, b) => a.wave - b.wave);
}

/** Counts of nothing. */
export const NO_DEVICES: DeviceCounts = {
  waiting: 0,
  active: 0,
  succeeded: 0,
  failed: 0,
  skipped: 0,
};

/** Counts of several waves together. */
export function sumCounts(waves: readonly DeviceCounts[]): DeviceCounts {
  const sum = (state: CampaignDeviceState): number =>
    waves.reduce((total, counts) => total + counts[state], 0);
  return {
    waiting: sum('waiting'),
    active: sum('active'),
    succeeded: sum('succeeded'),
    failed: sum('failed'),
    skipped: sum('skipped'),
  };
}

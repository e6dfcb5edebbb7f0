import { cutPage, type Page } from '../../drizzle/page.ts';
import type { Transaction } from '../../drizzle/transaction.ts';
import type { Campaign, CampaignDevice, CampaignDeviceQuery, CampaignQuery } from './campaign.ts';
import { COUNTED_CAMPAIGN, getCampaignRow } from './campaign-row.ts';

/** One page of campaigns, newest first. */
export async function listCampaigns(
  { client }: Transaction,
  { organizationId, kind, states, limit, after }: CampaignQuery,
): Promise<Page<Campaign>> {
  const { rows } = await client.query<Campaign>(
    `${COUNTED_CAMPAIGN}
     WHERE campaign.organization_id = $1 AND ($2::text IS NULL OR campaign.kind = $2)
       AND ($3::text[] IS NULL OR campaign.state = ANY($3))
       AND ($4::uuid IS NULL OR campaign.campaign_id < $4)
     ORDER BY campaign.campaign_id DESC LIMIT $5`,
    [organizationId, kind, states, after, limit + 1],
  );
  return cutPage(rows, limit);
}

/** One page of the devices of a campaign, in their order. @throws {CampaignNotFoundError} */
export async function listCampaignDevices(
  transaction: Transaction,
  { organizationId, campaignId, states, limit, after }: CampaignDeviceQuery,
): Promise<Page<CampaignDevice>> {
  await getCampaignRow(transaction, organizationId, campaignId);
  const { rows } = await transaction.client.query<CampaignDevice>(
    `SELECT device_id AS "deviceId", device.slug AS device, wave, position, state,
       command_id AS "commandId", code, detail, started_at AS "startedAt", ended_at AS "endedAt"
     FROM campaign_device JOIN device USING (device_id, organization_id)
     WHERE organization_id = $1 AND campaign_id = $2
       AND ($3::text[] IS NULL OR state = ANY($3)) AND ($4::int4 IS NULL OR position > $4)
     ORDER BY position LIMIT $5`,
    [organizationId, campaignId, states, after, limit + 1],
  );
  return cutPage(rows, limit);
}

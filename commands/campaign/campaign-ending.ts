import type pg from 'pg';
import { guardStore } from '../../drizzle/sqlstate.ts';
import { inTransaction, type Transaction } from '../../drizzle/transaction.ts';
import type { WriteAudit } from '../audit.ts';
import { stopReasonOf, type CampaignProgress } from './campaign-policy.ts';
import type { CampaignRow } from './campaign-row.ts';

/** Why a campaign stops, and when. */
export interface StopOrder {
  readonly stopCode: 'failed_percent' | 'failed_count';
  readonly progress: CampaignProgress;
  readonly nowMs: number;
}

const CODES_SHOWN = 3;
const PRUNE_CAMPAIGNS = 100;

/** Stops a campaign whose row is held: nothing more is begun. Devices under way are withdrawn behind it. */
export async function stopCampaign(
  transaction: Transaction,
  { campaignId, organizationId }: CampaignRow,
  { stopCode, progress, nowMs }: StopOrder,
  writeAudit: WriteAudit,
): Promise<string> {
  const wave = stopCode === 'failed_percent' ? progress.wave : null;
  const { rows } = await transaction.client.query<{ code: string; devices: number }>(
    `SELECT coalesce(code, 'failed') AS code, count(*)::int4 AS devices FROM campaign_device
     WHERE campaign_id = $1 AND state = 'failed' AND ($2::int4 IS NULL OR wave = $2)
     GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT $3`,
    [campaignId, wave, CODES_SHOWN],
  );
  const stopReason = stopReasonOf(stopCode, progress, rows);
  await transaction.client.query(
    `UPDATE campaign SET state = 'stopped', stop_code = $2, stop_reason = $3, updated_at = $4
     WHERE campaign_id = $1`,
    [campaignId, stopCode, stopReason, new Date(nowMs)],
  );
  await writeAudit(transaction.orm, {
    organizationId,
    actor: 'puback',
    action: 'campaign.stop',
    subject: `campaign/${campaignId}`,
    change: { stopCode, stopReason },
  });
  return stopReason;
}

/** Skips what waits, of a campaign that was stopped or cancelled. */
export async function skipWaiting(
  pool: pg.Pool,
  { campaignId, state }: CampaignRow,
  nowMs: number,
): Promise<void> {
  await guardStore(
    pool.query(
      `UPDATE campaign_device SET state = 'skipped', code = 'not_begun', detail = $2, ended_at = $3
       WHERE campaign_id = $1 AND state = 'waiting'`,
      [campaignId, `the campaign was ${state} before its turn came`, new Date(nowMs)],
    ),
  );
}

/** The end of a campaign without devices that wait or are under way. @returns false: it has some. */
export async function closeCampaign(
  pool: pg.Pool,
  { campaignId }: CampaignRow,
  nowMs: number,
): Promise<boolean> {
  const { rowCount } = await guardStore(
    pool.query(
      `UPDATE campaign SET ended_at = $2, updated_at = $2
       WHERE campaign_id = $1 AND ended_at IS NULL AND state IN ('stopped', 'cancelled')
         AND NOT EXISTS (SELECT FROM campaign_device
           WHERE campaign_id = $1 AND state IN ('waiting', 'active'))`,
      [campaignId, new Date(nowMs)],
    ),
  );
  return rowCount === 1;
}

/** Completes a campaign whose row is held. */
export async function completeCampaign(
  { client }: Transaction,
  { campaignId }: CampaignRow,
  nowMs: number,
): Promise<void> {
  await client.query(
    `UPDATE campaign SET state = 'completed', ended_at = $2, updated_at = $2
     WHERE campaign_id = $1`,
    [campaignId, new Date(nowMs)],
  );
}

/** Deletes campaigns that ended before a time, with their devices, some at a time. @returns how many. */
export async function pruneCampaigns(pool: pg.Pool, endedBeforeMs: number): Promise<number> {
  return inTransaction(pool, async ({ client }) => {
    const { rowCount } = await client.query(
      `DELETE FROM campaign WHERE campaign_id IN (
         SELECT campaign_id FROM campaign WHERE ended_at < $1 LIMIT ${PRUNE_CAMPAIGNS})`,
      [new Date(endedBeforeMs)],
    );
    return rowCount ?? 0;
  });
}

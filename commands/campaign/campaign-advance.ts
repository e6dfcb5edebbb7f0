import type pg from 'pg';
import { inTransaction, type Transaction } from '../../drizzle/transaction.ts';
import { completeCampaign, stopCampaign } from './campaign-ending.ts';
import type { WriteAudit } from '../audit.ts';
import { decideStep, type CampaignProgress, type CampaignStep } from './campaign-policy.ts';
import type { CampaignRow } from './campaign-row.ts';
import {
  claimDevices,
  findOpen,
  promoteDevices,
  readProgress,
  type ActiveDevice,
} from './campaign-work.ts';

/** What {@link advanceCampaign} needs. */
export interface AdvanceDeps {
  readonly pool: pg.Pool;
  readonly isOnline: (deviceId: number) => boolean;
  readonly writeAudit: WriteAudit;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** A step that was taken and committed. */
export interface TakenStep {
  readonly campaign: CampaignRow;
  readonly step: CampaignStep;
  /** Devices that are to be begun with now. */
  readonly claimed: readonly ActiveDevice[];
  /** Why it was stopped; null: it was not. */
  readonly stopReason: string | null;
}

/**
 * So many devices are begun with between two looks at what the campaign has come to: as many at most are
 * begun with behind the one that makes it stop.
 */
const BATCH_DEVICES = 25;

/**
 * Decides what a campaign does next, and commits it; its row is held while that goes on.
 * @returns null: it neither runs nor is paused any more.
 */
export function advanceCampaign(deps: AdvanceDeps, campaignId: string): Promise<TakenStep | null> {
  return inTransaction(deps.pool, async (transaction) => {
    const campaign = await findOpen(transaction.client, campaignId, true);
    if (campaign?.state !== 'running' && campaign?.state !== 'paused') return null;
    const progress = await readProgress(transaction.client, campaign, deps.now());
    const step = decideStep(campaign.policy, progress);
    const done = await takeStep(transaction, deps, { campaign, step, progress });
    return { campaign, step, claimed: [], stopReason: null, ...done };
  });
}

async function takeStep(
  transaction: Transaction,
  { isOnline, writeAudit }: AdvanceDeps,
  { campaign, step, progress }: Decision,
): Promise<Partial<TakenStep>> {
  const { client } = transaction;
  const { nowMs } = progress;
  switch (step.do) {
    case 'begin': {
      const devices = Math.min(step.devices, BATCH_DEVICES);
      return { claimed: await claimDevices(client, campaign, { devices, nowMs, isOnline }) };
    }
    case 'advance':
      await client.query(
        `UPDATE campaign SET wave = $2, wave_started_at = $3, updated_at = $3
         WHERE campaign_id = $1`,
        [campaign.campaignId, step.wave, new Date(nowMs)],
      );
      return {};
    case 'promote':
      await promoteDevices(client, campaign, step.devices);
      return {};
    case 'stop': {
      const order = { stopCode: step.stopCode, progress, nowMs };
      return { stopReason: await stopCampaign(transaction, campaign, order, writeAudit) };
    }
    case 'complete':
      await completeCampaign(transaction, campaign, nowMs);
      return {};
    case 'wait':
      return {};
  }
}

interface Decision {
  readonly campaign: CampaignRow;
  readonly step: CampaignStep;
  readonly progress: CampaignProgress;
}

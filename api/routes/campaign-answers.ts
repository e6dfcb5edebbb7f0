import { z } from 'zod';
import {
  CAMPAIGN_DEVICE_STATES,
  CAMPAIGN_STATES,
  type Campaign,
  type CampaignDetail,
  type CampaignDevice,
  type CampaignPlan,
  type DeviceCounts,
} from '../../commands/campaign/campaign.ts';
import { CAMPAIGN_KINDS } from '../../commands/campaign/campaign-kind.ts';
import type { CampaignPolicy } from '../../commands/campaign/campaign-policy.ts';
import { formatDuration } from '../../duration.ts';
import { timeAnswer } from '../schemas.ts';

const STATES = `running. paused: nothing more is begun until it is resumed. stopped: too many devices
failed. cancelled: by people. completed: all devices have ended. endedAt is null while devices are under way.`;
const DEVICE_STATES = `waiting: for its turn. active: it has been begun with. skipped: nothing was done, or
it was withdrawn. code and detail say why.`;

const policyAnswer = z.object({
  canary: z.number().int(),
  waves: z.array(z.number()).nullable(),
  waveDevices: z.number().int().nullable(),
  ratePerMinute: z.number().int(),
  concurrent: z.number().int(),
  stop: z.object({
    failedPercent: z.number().nullable(),
    failedCount: z.number().int().nullable(),
  }),
  settle: z.string(),
  deviceTimeout: z.string(),
});

const counts = z
  .object({
    waiting: z.number().int(),
    active: z.number().int(),
    succeeded: z.number().int(),
    failed: z.number().int(),
    skipped: z.number().int(),
  })
  .describe('Numbers of devices by state.');

/** A campaign as the API shows it in a list. */
export const campaignAnswer = z.object({
  id: z.uuid(),
  kind: z.enum(CAMPAIGN_KINDS),
  name: z.string(),
  state: z.enum(CAMPAIGN_STATES).describe(STATES),
  request: z.looseObject({}),
  policy: policyAnswer,
  wave: z.number().int().describe('The wave under way; 0 is the canary.'),
  waveStartedAt: timeAnswer.nullable(),
  devices: counts,
  stopCode: z
    .string()
    .nullable()
    .describe('failed_percent or failed_count; null: it did not stop.'),
  stopReason: z.string().nullable().describe('Why, for people: "3 of 5 canaries failed: valve".'),
  createdAt: timeAnswer,
  createdBy: z.string().describe('Id of a key.'),
  updatedAt: timeAnswer,
  endedAt: timeAnswer.nullable(),
});

/** A campaign with its waves. */
export const campaignWithWaves = campaignAnswer.extend({
  waves: z
    .array(counts.extend({ wave: z.number().int() }))
    .describe('Those that have devices, in their order.'),
});

/** What a campaign would do. */
export const campaignPlanAnswer = z.object({
  dryRun: z.literal(true),
  kind: z.enum(CAMPAIGN_KINDS),
  request: z.looseObject({}),
  policy: policyAnswer,
  waves: z.array(
    z.object({
      wave: z.number().int(),
      devices: z.number().int().describe('How many.'),
      first: z.array(z.string()).describe('Names of the first 100.'),
    }),
  ),
  skipped: z
    .array(z.object({ device: z.string(), code: z.string(), detail: z.string() }))
    .describe('Devices that match and are left out; the first 100.'),
  skippedDevices: z.number().int(),
});

/** A device of a campaign. */
export const campaignDeviceAnswer = z.object({
  device: z.string(),
  wave: z.number().int(),
  state: z.enum(CAMPAIGN_DEVICE_STATES).describe(DEVICE_STATES),
  commandId: z.uuid().nullable(),
  code: z.string().nullable(),
  detail: z.string().nullable(),
  startedAt: timeAnswer.nullable(),
  endedAt: timeAnswer.nullable(),
});

const NAMES_SHOWN = 100;

/** The body for a campaign in a list. */
export function campaignBody(campaign: Campaign): z.input<typeof campaignAnswer> {
  return {
    id: campaign.campaignId,
    kind: campaign.kind,
    name: campaign.name,
    state: campaign.state,
    request: { ...campaign.request },
    policy: policyBody(campaign.policy),
    wave: campaign.wave,
    waveStartedAt: timeText(campaign.waveStartedAt),
    devices: countsBody(campaign.counts),
    stopCode: campaign.stopCode,
    stopReason: campaign.stopReason,
    createdAt: campaign.createdAt.toISOString(),
    createdBy: campaign.createdBy,
    updatedAt: campaign.updatedAt.toISOString(),
    endedAt: timeText(campaign.endedAt),
  };
}

/** The body for a campaign with its waves. */
export function campaignWithWavesBody(campaign: CampaignDetail): z.input<typeof campaignWithWaves> {
  const waves = campaign.waves.map((one) => ({ wave: one.wave, ...countsBody(one) }));
  return { ...campaignBody(campaign), waves };
}

/** The body for a plan. */
export function campaignPlanBody(plan: CampaignPlan): z.input<typeof campaignPlanAnswer> {
  return {
    dryRun: true,
    kind: plan.kind,
    request: { ...plan.request },
    policy: policyBody(plan.policy),
    waves: plan.waves.map(({ wave, devices }) => ({
      wave,
      devices: devices.length,
      first: devices.slice(0, NAMES_SHOWN),
    })),
    skipped: plan.skipped.slice(0, NAMES_SHOWN),
    skippedDevices: plan.skipped.length,
  };
}

/** The body for a device of a campaign. */
export function campaignDeviceBody(device: CampaignDevice): z.input<typeof campaignDeviceAnswer> {
  const { wave, state, commandId, code, detail } = device;
  return {
    device: device.device,
    wave,
    state,
    commandId,
    code,
    detail,
    startedAt: timeText(device.startedAt),
    endedAt: timeText(device.endedAt),
  };
}

function countsBody(of: DeviceCounts): z.input<typeof counts> {
  const { waiting, active, succeeded, failed, skipped } = of;
  return { waiting, active, succeeded, failed, skipped };
}

function policyBody(policy: CampaignPolicy): z.input<typeof policyAnswer> {
  const { canary, waves, waveDevices, ratePerMinute, concurrent, stop } = policy;
  return {
    canary,
    waves: waves === null ? null : [...waves],
    waveDevices,
    ratePerMinute,
    concurrent,
    stop: { failedPercent: stop.failedPercent, failedCount: stop.failedCount },
    settle: formatDuration(policy.settleMs * 1000),
    deviceTimeout: formatDuration(policy.deviceTimeoutMs * 1000),
  };
}

function timeText(time: Date | null): string | null {
  return time === null ? null : time.toISOString();
}

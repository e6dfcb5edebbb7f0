import type {
  CampaignKind,
  CampaignTarget,
  CampaignVerdict,
  RunningCampaign,
} from './campaign-kind.ts';
import type { ActiveDevice } from './campaign-work.ts';

/**
 * Asks a kind what has become of devices under way, and gives up those that take too long: they are
 * withdrawn, and what they have come to by then counts.
 * @param devices without those whose begin was not heard of to its end.
 */
export async function judgeDevices(
  kind: CampaignKind,
  campaign: RunningCampaign,
  devices: readonly ActiveDevice[],
  nowMs: number,
): Promise<CampaignVerdict[]> {
  if (devices.length === 0) return [];
  const isOverdue = ({ startedAt }: ActiveDevice): boolean =>
    nowMs - startedAt.getTime() >= campaign.deviceTimeoutMs;
  const verdicts = await kind.judge(campaign, devices);
  const judged = new Set(verdicts.map(({ deviceId }) => deviceId));
  const late = devices.filter((device) => isOverdue(device) && !judged.has(device.deviceId));
  const given = late.length === 0 ? [] : await giveUp(kind, campaign, late);
  const overdue = new Set(devices.filter(isOverdue).map(({ deviceId }) => deviceId));
  // Withdrawn because it was late, and then a crash: it failed all the same.
  const known = verdicts.map((verdict) =>
    verdict.state === 'skipped' && overdue.has(verdict.deviceId)
      ? timedOut(campaign, verdict.deviceId)
      : verdict,
  );
  return [...known, ...given];
}

async function giveUp(
  kind: CampaignKind,
  campaign: RunningCampaign,
  late: readonly CampaignTarget[],
): Promise<CampaignVerdict[]> {
  await kind.withdraw(campaign, late);
  const ended = await kind.judge(campaign, late);
  return late.map(({ deviceId }) => {
    const verdict = ended.find((one) => one.deviceId === deviceId);
    const hasEnded = verdict !== undefined && verdict.state !== 'skipped';
    return hasEnded ? verdict : timedOut(campaign, deviceId);
  });
}

function timedOut({ deviceTimeoutMs }: RunningCampaign, deviceId: number): CampaignVerdict {
  const detail = `it did not end within ${Math.round(deviceTimeoutMs / 1000)} s`;
  return { deviceId, state: 'failed', code: 'timeout', detail };
}

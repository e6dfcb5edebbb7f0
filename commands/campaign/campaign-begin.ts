import { AppError, StoreUnavailableError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type {
  CampaignBegin,
  CampaignKind,
  CampaignVerdict,
  RunningCampaign,
} from './campaign-kind.ts';
import type { ActiveDevice } from './campaign-work.ts';

/** What came of an attempt to begin with a device; null: it is to be tried again later. */
export type BeginOutcome =
  | { readonly begun: Extract<CampaignBegin, { commandId: string | null }> }
  | { readonly verdict: CampaignVerdict }
  | null;

/** Begins with one device. Never rejects: a fault of its kind is a failure of the device. */
export async function beginDevice(
  kind: CampaignKind,
  campaign: RunningCampaign,
  device: ActiveDevice,
  log: Logger,
): Promise<BeginOutcome> {
  const { deviceId, isDisabled } = device;
  if (isDisabled) return { verdict: DISABLED(deviceId) };
  try {
    const begun = await kind.begin(campaign, device);
    if (!('skipped' in begun)) return { begun };
    const { skipped: code, detail } = begun;
    return { verdict: { deviceId, state: 'skipped', code, detail } };
  } catch (err) {
    if (err instanceof StoreUnavailableError) return null;
    if (!(err instanceof AppError)) {
      const { campaignId } = campaign;
      log.error({ err, campaignId, deviceId }, 'campaign could not begin with a device');
    }
    return { verdict: { deviceId, state: 'failed', ...faultOf(err) } };
  }
}

const DISABLED = (deviceId: number): CampaignVerdict => ({
  deviceId,
  state: 'skipped',
  code: 'device_disabled',
  detail: 'the device was disabled before its turn came',
});

/** Of a fault of ours people are told nothing but that; the log has it. */
function faultOf(err: unknown): { code: string; detail: string } {
  if (!(err instanceof AppError)) {
    return { code: 'internal_error', detail: 'an unexpected fault; the log has it' };
  }
  return { code: err.code.toLowerCase(), detail: err.message };
}

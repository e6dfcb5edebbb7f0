import type { WaveCounts } from './campaign.ts';

/** How fast a campaign goes and when it stops. As it is stored. */
export interface CampaignPolicy {
  /** Devices of wave 0; 0: there is none. */
  readonly canary: number;
  /** Percent of all devices that have been reached with each wave, ascending, the last 100; or null. */
  readonly waves: readonly number[] | null;
  /** Devices of each wave behind the canary, where `waves` is null. */
  readonly waveDevices: number | null;
  /** Most devices that are begun with in any 60 s. */
  readonly ratePerMinute: number;
  /** Most devices under way at a time. */
  readonly concurrent: number;
  readonly stop: StopPolicy;
  /** From the end of the last device of a wave to the begin of the next wave. */
  readonly settleMs: number;
  /** From the begin of a device to its failure when nothing else ends it. */
  readonly deviceTimeoutMs: number;
}

/** When a campaign stops by itself; null: never for that reason. */
export interface StopPolicy {
  /** Of the devices of a wave that have ended; see {@link SAMPLE_DEVICES}. */
  readonly failedPercent: number | null;
  /** In all waves together. */
  readonly failedCount: number | null;
}

/** What is known of a campaign at a moment. Times in ms. */
export interface CampaignProgress {
  readonly nowMs: number;
  readonly isPaused: boolean;
  readonly wave: number;
  /** Of the wave under way. */
  readonly counts: WaveCounts;
  /** When the last device of this wave ended; null: none has. */
  readonly lastEndedMs: number | null;
  /** Devices that wait in later waves. */
  readonly waitingLater: number;
  /** The first later wave with a device that waits; null: none has. */
  readonly nextWave: number | null;
  /** Devices under way, in all waves. */
  readonly active: number;
  /** Devices that failed, in all waves. */
  readonly failed: number;
  /** Devices begun with less than 60 s ago. */
  readonly begunInMinute: number;
  /** Devices begun with less than {@link pacingSpan} ago. */
  readonly begunInSpan: number;
}

/** What is to be done next. */
export type CampaignStep =
  | { readonly do: 'stop'; readonly stopCode: 'failed_percent' | 'failed_count' }
  | { readonly do: 'complete' }
  | { readonly do: 'advance'; readonly wave: number }
  /** So many devices of later waves become canaries, in place of those that were skipped. */
  | { readonly do: 'promote'; readonly devices: number }
  /** At most so many devices of the wave under way. */
  | { readonly do: 'begin'; readonly devices: number }
  /** Nothing, until a device has ended or time has passed. */
  | { readonly do: 'wait' };

/**
 * So many devices of a wave, or all of a smaller one, are counted as ended when fewer have: else the first
 * device of a wave that ends, if it failed, would be a hundred percent.
 */
export const SAMPLE_DEVICES = 10;
/** Length of the window in which no more than `ratePerMinute` devices are begun with. */
export const RATE_WINDOW_MS = 60_000;
/** Most waves: with more of them nobody could follow. */
export const WAVES_MAX = 100;
const PERCENT_MAX = 100;
/** A timer may fire a little early, and a device must not wait for the next look because of that. */
const SPAN_SLACK = 0.9;

/** The next step of a campaign that runs or is paused. Pure; the same facts give the same step. */
export function decideStep(policy: CampaignPolicy, progress: CampaignProgress): CampaignStep {
  const stopCode = reasonToStop(policy, progress);
  if (stopCode !== null) return { do: 'stop', stopCode };
  const { counts, waitingLater, nextWave, active, isPaused, wave } = progress;
  if (counts.waiting + waitingLater + active === 0) return { do: 'complete' };
  if (isPaused) return { do: 'wait' };
  if (counts.waiting > 0) return beginStep(policy, progress);
  if (active > 0 || nextWave === null) return { do: 'wait' };
  const missing = wave === 0 ? policy.canary - counts.succeeded - counts.failed : 0;
  if (missing > 0) return { do: 'promote', devices: Math.min(missing, waitingLater) };
  return isSettled(policy, progress) ? { do: 'advance', wave: nextWave } : { do: 'wait' };
}

function reasonToStop(
  { stop }: CampaignPolicy,
  { counts, failed }: CampaignProgress,
): 'failed_percent' | 'failed_count' | null {
  const { failedPercent, failedCount } = stop;
  if (failedCount !== null && failed >= failedCount) return 'failed_count';
  if (failedPercent === null || counts.failed === 0) return null;
  const isReached = counts.failed * PERCENT_MAX >= failedPercent * sampleOf(counts);
  return isReached ? 'failed_percent' : null;
}

/** Of how many devices those that failed are a share. Devices that were skipped say nothing. */
function sampleOf({ waiting, active, succeeded, failed }: WaveCounts): number {
  const ended = succeeded + failed;
  return Math.max(ended, Math.min(SAMPLE_DEVICES, ended + waiting + active));
}

function beginStep(policy: CampaignPolicy, progress: CampaignProgress): CampaignStep {
  const { counts, active, begunInMinute, begunInSpan } = progress;
  const devices = Math.min(
    counts.waiting,
    policy.concurrent - active,
    policy.ratePerMinute - begunInMinute,
    pacingSpan(policy).devices - begunInSpan,
  );
  return devices > 0 ? { do: 'begin', devices } : { do: 'wait' };
}

function isSettled({ settleMs }: CampaignPolicy, progress: CampaignProgress): boolean {
  const { counts, lastEndedMs, nowMs } = progress;
  // A wave of which nothing was begun, an empty canary for one, has nothing to settle.
  const isTouched = counts.succeeded + counts.failed > 0;
  if (!isTouched || lastEndedMs === null) return true;
  // Ahead of us: the clock was set back, and how long ago it was is not known.
  return nowMs - lastEndedMs >= settleMs || lastEndedMs - nowMs > settleMs;
}

/**
 * The rate spread over the minute: at most so many devices in so many ms. Ten a minute are one in six
 * seconds, six hundred are ten in a second.
 */
export function pacingSpan({ ratePerMinute }: Pick<CampaignPolicy, 'ratePerMinute'>): {
  readonly spanMs: number;
  readonly devices: number;
} {
  const spanMs = Math.max(1000, RATE_WINDOW_MS / ratePerMinute);
  return {
    spanMs: spanMs * SPAN_SLACK,
    devices: Math.ceil((ratePerMinute * spanMs) / RATE_WINDOW_MS),
  };
}

/**
 * The number of the devices of each wave, first the canary, together `total`. Waves without devices stay
 * in, as 0.
 */
export function sizeWaves(
  { canary, waves, waveDevices }: Pick<CampaignPolicy, 'canary' | 'waves' | 'waveDevices'>,
  total: number,
): number[] {
  const sizes = [Math.min(canary, total)];
  let reached = Math.min(canary, total);
  const reachNext = (upTo: number): void => {
    sizes.push(Math.max(upTo - reached, 0));
    reached = Math.max(upTo, reached);
  };
  for (const percent of waves ?? []) reachNext(Math.ceil((total * percent) / PERCENT_MAX));
  while (reached < total) reachNext(Math.min(reached + (waveDevices ?? total), total));
  return sizes;
}

/** Why a campaign was stopped, with numbers: `3 of 5 canaries failed: valve`. */
export function stopReasonOf(
  stopCode: 'failed_percent' | 'failed_count',
  { counts, failed }: Pick<CampaignProgress, 'counts' | 'failed'>,
  codes: readonly { readonly code: string; readonly devices: number }[],
): string {
  const why = codesText(codes);
  if (stopCode === 'failed_count') return `${failed} ${plural('device', failed)} failed${why}`;
  const ended = counts.succeeded + counts.failed;
  if (counts.wave > 0) {
    return `${counts.failed} of ${ended} ${plural('device', ended)} that ended in wave ${counts.wave} failed${why}`;
  }
  const canaries = ended + counts.waiting + counts.active;
  const noun = canaries === 1 ? 'canary' : 'canaries';
  return `${counts.failed} of ${canaries} ${noun} failed${why}`;
}

function codesText(codes: readonly { readonly code: string; readonly devices: number }[]): string {
  const [only] = codes;
  if (only === undefined) return '';
  if (codes.length === 1) return `: ${only.code}`;
  return `: ${codes.map(({ code, devices }) => `${code} (${devices})`).join(', ')}`;
}

function plural(noun: string, count: number): string {
  return count === 1 ? noun : `${noun}s`;
}

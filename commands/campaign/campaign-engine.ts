import { reasonOf, StoreUnavailableError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { advanceCampaign, type AdvanceDeps, type TakenStep } from './campaign-advance.ts';
import { beginDevice } from './campaign-begin.ts';
import { closeCampaign, pruneCampaigns, skipWaiting } from './campaign-ending.ts';
import { judgeDevices } from './campaign-judge.ts';
import type { CampaignKind, CampaignVerdict } from './campaign-kind.ts';
import type { CampaignRow } from './campaign-row.ts';
import {
  endDevices,
  findOpen,
  listActive,
  listOpen,
  noteBegun,
  runningOf,
  type ActiveDevice,
} from './campaign-work.ts';
import { inLanes } from './lanes.ts';
import type { CampaignMetrics } from './metrics.ts';
import { Rounds } from './rounds.ts';

/** What {@link CampaignEngine} needs. */
export interface CampaignEngineDeps extends AdvanceDeps {
  readonly kinds: ReadonlyMap<string, CampaignKind>;
  readonly metrics: CampaignMetrics;
  /** How long campaigns are kept after their end. */
  readonly ageMaxMs: number;
  readonly log: Logger;
  /** Longest time between two looks at a campaign. */
  readonly tickMs: number;
}

/**
 * Who else may be beginning with a device has so long, before that is taken for what a crash, or an outage
 * of the database, left behind.
 */
const BEGIN_LEASE_MS = 10_000;
const PRUNE_EVERY_MS = 3_600_000;

/**
 * Runs campaigns. All that it knows stands in the database: what a crash leaves behind, the next start goes
 * on with. A campaign's row is held while it is decided what comes next, so that two engines at a time keep
 * its rate and its bounds together too. Campaigns take turns, a batch of devices each.
 */
export class CampaignEngine {
  readonly #deps: CampaignEngineDeps;
  readonly #rounds: Rounds;
  /** Number of devices under way, by campaign that has not ended. */
  readonly #active = new Map<string, number>();
  /** Devices that were withdrawn since the start, by campaign that ends. */
  readonly #withdrawn = new Map<string, Set<number>>();
  readonly #failing = new Set<string>();
  #isStoreAway = false;
  #prunedMs = 0;

  constructor(deps: CampaignEngineDeps) {
    this.#deps = deps;
    this.#rounds = new Rounds({
      find: () => this.#find(),
      step: (campaignId) => this.#guardedStep(campaignId),
      tickMs: deps.tickMs,
    });
  }

  /** Devices under way, as they were last looked at. */
  get activeDevices(): number {
    return [...this.#active.values()].reduce((sum, devices) => sum + devices, 0);
  }

  /** Campaigns that have not ended, as they were last looked at. */
  get openCampaigns(): number {
    return this.#active.size;
  }

  start(): void {
    this.#rounds.start();
  }

  /** Resolves behind the steps under way. */
  stop(): Promise<void> {
    return this.#rounds.stop();
  }

  /** Looks at a campaign now. */
  wake(campaignId: string): void {
    this.#rounds.wake(campaignId);
  }

  async #find(): Promise<readonly string[]> {
    try {
      const open = await listOpen(this.#deps.pool);
      this.#noteStore(null);
      await this.#prune();
      this.#forgetAllBut(new Set(open));
      return open;
    } catch (err) {
      this.#noteFault('', err);
      return [];
    }
  }

  async #prune(): Promise<void> {
    const { pool, now, ageMaxMs } = this.#deps;
    if (now() - this.#prunedMs < PRUNE_EVERY_MS) return;
    // As many as one statement takes; the others have their turn with the next look.
    const pruned = await pruneCampaigns(pool, now() - ageMaxMs);
    if (pruned === 0) this.#prunedMs = now();
  }

  /** @returns whether there is more to do at once. */
  async #guardedStep(campaignId: string): Promise<boolean> {
    try {
      const isMore = await this.#step(campaignId);
      this.#failing.delete(campaignId);
      return isMore;
    } catch (err) {
      this.#noteFault(campaignId, err);
      return false;
    }
  }

  async #step(campaignId: string): Promise<boolean> {
    const campaign = await findOpen(this.#deps.pool, campaignId);
    const kind = campaign === null ? undefined : this.#deps.kinds.get(campaign.kind);
    if (campaign === null || kind === undefined) return false;
    const left = await this.#judge(campaign, kind);
    const { state } = campaign;
    if (state === 'stopped' || state === 'cancelled') return this.#windDown(campaign, kind);
    if (state === 'running') await this.#begin(campaign, kind, left);
    const taken = await advanceCampaign(this.#deps, campaignId);
    // It was cancelled meanwhile: it winds down.
    if (taken === null) return true;
    await this.#begin(campaign, kind, taken.claimed);
    return this.#noteStep(taken);
  }

  /** Ends devices of which the kind knows an end. @returns devices whose begin something cut off. */
  async #judge(campaign: CampaignRow, kind: CampaignKind): Promise<ActiveDevice[]> {
    const { pool, now } = this.#deps;
    const active = await listActive(pool, campaign.campaignId);
    this.#active.set(campaign.campaignId, active.length);
    const begun = active.filter(({ isBeginning }) => !isBeginning);
    const verdicts = await judgeDevices(kind, runningOf(campaign), begun, now());
    await this.#end(campaign, verdicts);
    return active.filter((device) => device.isBeginning && !this.#isBeingBegun(device));
  }

  #isBeingBegun({ isBeginning, startedAt }: ActiveDevice): boolean {
    return isBeginning && this.#deps.now() - startedAt.getTime() < BEGIN_LEASE_MS;
  }

  async #begin(
    campaign: CampaignRow,
    kind: CampaignKind,
    devices: readonly ActiveDevice[],
  ): Promise<void> {
    const { pool, metrics, log } = this.#deps;
    const running = runningOf(campaign);
    await inLanes(devices, async (device) => {
      const outcome = await beginDevice(kind, running, device, log);
      if (outcome === null) return;
      if ('verdict' in outcome) return this.#end(campaign, [outcome.verdict]);
      await noteBegun(pool, running, device.deviceId, outcome.begun);
      metrics.begun();
    });
  }

  async #end(campaign: CampaignRow, verdicts: readonly CampaignVerdict[]): Promise<void> {
    const { pool, now, metrics } = this.#deps;
    const taken = await endDevices(pool, campaign.campaignId, verdicts, now());
    for (const { state } of taken) metrics.deviceEnded(state);
  }

  /** @returns whether there is more to do at once. */
  #noteStep({ campaign, step, claimed, stopReason }: TakenStep): boolean {
    const { metrics, log } = this.#deps;
    const { campaignId, organizationId: orgId } = campaign;
    if (stopReason !== null) log.warn({ campaignId, orgId, stopReason }, 'campaign stopped');
    if (step.do === 'complete') metrics.campaignEnded('completed');
    if (step.do === 'begin') return claimed.length > 0;
    return step.do !== 'wait' && step.do !== 'complete';
  }

  /** Withdraws what is under way, once each, and ends a campaign when nothing is. */
  async #windDown(campaign: CampaignRow, kind: CampaignKind): Promise<boolean> {
    const { pool, now, metrics } = this.#deps;
    const { campaignId, state } = campaign;
    await skipWaiting(pool, campaign, now());
    const active = await listActive(pool, campaignId);
    const withdrawn = this.#withdrawn.get(campaignId) ?? new Set();
    this.#withdrawn.set(campaignId, withdrawn);
    const left = active.filter(
      (device) => !withdrawn.has(device.deviceId) && !this.#isBeingBegun(device),
    );
    if (left.length > 0) {
      await kind.withdraw(runningOf(campaign), left);
      for (const { deviceId } of left) withdrawn.add(deviceId);
      await this.#end(campaign, left.filter(({ isBeginning }) => isBeginning).map(neverBegun));
      return true;
    }
    if (!(await closeCampaign(pool, campaign, now()))) return false;
    metrics.campaignEnded(state === 'stopped' ? 'stopped' : 'cancelled');
    return false;
  }

  #forgetAllBut(open: ReadonlySet<string>): void {
    for (const known of [this.#active, this.#withdrawn]) {
      for (const campaignId of known.keys()) if (!open.has(campaignId)) known.delete(campaignId);
    }
    for (const campaignId of open) {
      if (!this.#active.has(campaignId)) this.#active.set(campaignId, 0);
    }
  }

  #noteFault(campaignId: string, err: unknown): void {
    if (err instanceof StoreUnavailableError) return this.#noteStore(err);
    if (this.#failing.has(campaignId)) return;
    this.#failing.add(campaignId);
    this.#deps.log.error({ err, campaignId }, 'campaign does not get on, will be tried again');
  }

  #noteStore(fault: StoreUnavailableError | null): void {
    const { log } = this.#deps;
    if (this.#isStoreAway === (fault !== null)) return;
    this.#isStoreAway = fault !== null;
    if (fault === null) log.info('campaigns go on');
    else log.warn({ err: reasonOf(fault) }, 'campaigns wait for the database');
  }
}

function neverBegun({ deviceId }: ActiveDevice): CampaignVerdict {
  const detail = 'the campaign ended before its begin was heard of';
  return { deviceId, state: 'skipped', code: 'withdrawn', detail };
}

import { pino } from 'pino';
import { Registry as MetricsRegistry } from 'prom-client';
import { createCampaigns, type CampaignsDeps } from '../../commands/campaign/campaigns.ts';
import type { CampaignParts, NewCampaign } from '../../commands/campaign/campaign.ts';
import type {
  CampaignKind,
  CampaignTarget,
  CampaignVerdict,
  RunningCampaign,
} from '../../commands/campaign/campaign-kind.ts';
import { StoreUnavailableError } from '../../errors.ts';
import { writeAudit } from '../../registry/audit.ts';
import type { Database } from '../../drizzle/database.ts';

/** Bounds that tests can reach. */
export const campaignLimits = {
  openMax: 6,
  devicesMax: 1500,
  concurrentMax: 1000,
  ratePerMinuteMax: 100_000,
  ageMaxMs: 30 * 86_400_000,
};

/** Campaigns on a test database, with looks in quick succession. */
export function testCampaigns(
  database: Database,
  kinds: readonly CampaignKind[],
  more: Partial<CampaignsDeps> = {},
): CampaignParts {
  return createCampaigns({
    database,
    kinds,
    writeAudit,
    now: Date.now,
    limits: campaignLimits,
    metricsRegistry: new MetricsRegistry(),
    log: pino({ level: 'silent' }),
    tickMs: 20,
    ...more,
  });
}

/** A campaign that goes as fast as it can, unless told otherwise. */
export function newCampaign(more: Partial<NewCampaign> = {}): NewCampaign {
  return {
    kind: 'command',
    name: 'test',
    targets: { devices: null, tags: null, types: null },
    request: { command: 'relay' },
    canaryDevices: [],
    idempotencyKey: null,
    ...more,
    policy: {
      canary: 0,
      waves: [100],
      waveDevices: null,
      ratePerMinute: 100_000,
      concurrent: 1000,
      stop: { failedPercent: null, failedCount: null },
      settleMs: 0,
      deviceTimeoutMs: 3_600_000,
      ...more.policy,
    },
  };
}

/** A kind whose devices do what the test says. */
export class FakeKind implements CampaignKind {
  readonly kind: CampaignKind['kind'];
  /** Calls of `begin`, by device. */
  readonly begun = new Map<string, number>();
  readonly withdrawn: string[] = [];
  /** Devices that were withdrawn when no begin was known. */
  readonly withdrawnUnknown: string[] = [];
  readonly order: string[] = [];
  /** What becomes of a device; null: nothing yet. */
  outcome: (device: string) => Pick<CampaignVerdict, 'state' | 'code' | 'detail'> | null = () =>
    SUCCEEDED;
  /** Asked before a begin; throws, or waits. */
  before: (device: string) => Promise<void> | void = () => undefined;
  /** Devices that are skipped. */
  skips: (device: string) => boolean = () => false;
  refuses: (types: readonly (string | null)[]) => void = () => undefined;
  activeMax = 0;
  readonly #open = new Set<string>();

  constructor(kind: CampaignKind['kind'] = 'command') {
    this.kind = kind;
  }

  async prepare(_author: unknown, request: unknown): Promise<Record<string, unknown>> {
    return { ...(request as object) };
  }

  async checkTypes(
    _author: unknown,
    _request: unknown,
    types: readonly (string | null)[],
  ): Promise<void> {
    this.refuses(types);
  }

  async begin(
    _campaign: RunningCampaign,
    { device, deviceId }: CampaignTarget,
  ): ReturnType<CampaignKind['begin']> {
    await this.before(device);
    if (this.skips(device)) return { skipped: 'up_to_date', detail: 'nothing to do' };
    this.begun.set(device, (this.begun.get(device) ?? 0) + 1);
    this.order.push(device);
    this.#open.add(device);
    this.activeMax = Math.max(this.activeMax, this.#open.size);
    return { commandId: null, facts: { deviceId } };
  }

  async judge(
    _campaign: RunningCampaign,
    targets: readonly CampaignTarget[],
  ): Promise<CampaignVerdict[]> {
    return targets.flatMap(({ deviceId, device }) => {
      const outcome = this.withdrawn.includes(device) ? WITHDRAWN : this.outcome(device);
      if (outcome === null) return [];
      this.#open.delete(device);
      return [{ deviceId, ...outcome }];
    });
  }

  async withdraw(_campaign: RunningCampaign, targets: readonly CampaignTarget[]): Promise<void> {
    for (const { device, facts } of targets) {
      this.withdrawn.push(device);
      if (Object.keys(facts).length === 0) this.withdrawnUnknown.push(device);
    }
  }
}

/** Devices that say so. */
export const SUCCEEDED = { state: 'succeeded', code: 'ok', detail: 'done' } as const;
/** Devices that say so. */
export const FAILED = { state: 'failed', code: 'valve', detail: 'stuck' } as const;
const WITHDRAWN = { state: 'skipped', code: 'cancelled', detail: 'it was cancelled' } as const;

/** What a kind throws when the database is away. */
export function storeAway(): never {
  throw new StoreUnavailableError(new Error('test'));
}

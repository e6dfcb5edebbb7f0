import type { Registry as MetricsRegistry } from 'prom-client';
import type { Database } from '../../drizzle/database.ts';
import type { Logger } from '../../log.ts';
import type { WriteAudit } from '../audit.ts';
import { END_STATES } from '../command.ts';
import type { CampaignParts } from './campaign.ts';
import type { CampaignLimits } from './campaign-bounds.ts';
import { CampaignEngine } from './campaign-engine.ts';
import type { CampaignKind } from './campaign-kind.ts';
import { CampaignStore } from './campaign-store.ts';
import { CampaignMetrics } from './metrics.ts';

/** What {@link createCampaigns} needs. */
export interface CampaignsDeps {
  readonly database: Pick<Database, 'pool' | 'tenantRole'>;
  /** What campaigns can do here; at most one of each name. */
  readonly kinds: readonly CampaignKind[];
  /** Whether a device has a connection now; those that have go first. Left out: nobody knows. */
  readonly isOnline?: ((deviceId: number) => boolean) | undefined;
  readonly writeAudit: WriteAudit;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly limits: CampaignLimits;
  readonly metricsRegistry: MetricsRegistry;
  readonly log: Logger;
  /** Longest time between two looks at a campaign; a second when left out. */
  readonly tickMs?: number | undefined;
}

const TICK_MS = 1000;

/** Makes campaigns. Nothing is begun before `start`. */
export function createCampaigns(deps: CampaignsDeps): CampaignParts {
  const { database, writeAudit, now, limits, metricsRegistry, log, tickMs = TICK_MS } = deps;
  const { isOnline = () => false } = deps;
  const kinds = new Map(deps.kinds.map((kind) => [kind.kind as string, kind]));
  const metrics = new CampaignMetrics(metricsRegistry, () => engine);
  const engine: CampaignEngine = new CampaignEngine({
    pool: database.pool,
    kinds,
    isOnline,
    writeAudit,
    metrics,
    ageMaxMs: limits.ageMaxMs,
    now,
    log,
    tickMs,
  });
  const onChanged = (campaignId: string): void => engine.wake(campaignId);
  return {
    campaigns: new CampaignStore({
      database,
      kinds,
      isOnline,
      writeAudit,
      limits,
      now,
      onChanged,
    }),
    start: () => engine.start(),
    stop: () => engine.stop(),
    noteCommand({ campaignId, state }) {
      if (campaignId !== null && END_STATES.has(state)) engine.wake(campaignId);
    },
  };
}

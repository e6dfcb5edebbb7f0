import { join } from 'node:path';
import type { Registry as MetricsRegistry } from 'prom-client';
import type { Config } from './config.ts';
import type { Database } from './drizzle/database.ts';
import { createAggregates, type Aggregates } from './ingest/aggregates/aggregates.ts';
import { Ingest } from './ingest/ingest.ts';
import type { ReadingObserver } from './ingest/observer.ts';
import { createOccurrences } from './ingest/occurrences.ts';
import { registerSpoolMetrics } from './ingest/spool/spool-metrics.ts';
import { claimSpool } from './ingest/spool/spool-owner.ts';
import { Spool } from './ingest/spool/spool.ts';
import { ingestLimits, pruneOccurrences, retentionBounds } from './joints.ts';
import type { Logger } from './log.ts';
import { createPruning, watchQuarantine } from './quarantine-joints.ts';
import type { Registry } from './registry/registry.ts';

/** What stores messages is joined with. */
export interface StoreDeps {
  readonly config: Config;
  readonly database: Database;
  readonly registry: Registry;
  readonly metricsRegistry: MetricsRegistry;
  /** Told of what devices send; see `Ingest`. */
  readonly observer: ReadingObserver;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly log: Logger;
  readonly onStop: (name: string, close: () => Promise<void>) => void;
}

/** What takes messages in, and what is made of them. */
export interface Store {
  readonly ingest: Ingest;
  readonly aggregates: Aggregates;
}

const PRUNE_MS = 60_000;

/**
 * Opens what stores messages: the spool, ingest, the aggregates, and what deletes what is too old. In the
 * order in which they need each other: how far aggregates are made is known before anything is stored.
 */
export async function openStore(deps: StoreDeps): Promise<Store> {
  const { config, database, registry, metricsRegistry, now, log, onStop } = deps;
  const folder = join(config.DATA_DIR, 'spool');
  const spool = await Spool.open({
    folder,
    limits: { bytesMax: config.SPOOL_BYTES_MAX, segmentBytes: config.SPOOL_SEGMENT_BYTES },
    log,
  });
  onStop('spool', () => spool.close());
  if (config.SPOOL_BYTES_MAX > 0) await claimSpool(folder, database.pool, spool.pendingMessages);
  registerSpoolMetrics(metricsRegistry, spool);
  const limits = ingestLimits(config);
  const { observer } = deps;
  const ingest = new Ingest({
    database,
    spool,
    limits,
    observer,
    now,
    registry: metricsRegistry,
    log,
  });
  await watchQuarantine({ registry, ingest, log });
  const aggregates = await openAggregates(deps, ingest);
  await ingest.start();
  onStop('ingest', () => ingest.stop());
  startPruning(deps);
  return { ingest, aggregates };
}

async function openAggregates(deps: StoreDeps, ingest: Ingest): Promise<Aggregates> {
  const { config, database, metricsRegistry, now, log, onStop } = deps;
  const aggregates = createAggregates({
    database,
    limits: {
      databaseTimeoutMs: config.DATABASE_TIMEOUT_S * 1000,
      retention: retentionBounds(config),
    },
    metricsRegistry,
    clock: now,
    onWatermark: (micros) => ingest.raiseWatermark(micros),
    onPartitionsDropped: () => ingest.forgetPartitions(),
    log,
  });
  await aggregates.start();
  onStop('aggregates', () => aggregates.stop());
  return aggregates;
}

function startPruning({ config, database, metricsRegistry, log, onStop }: StoreDeps): void {
  const occurrences = createOccurrences(database);
  const pruneQuarantine = createPruning(config, database, { metricsRegistry, log });
  const timer = setInterval(() => {
    pruneQuarantine();
    pruneOccurrences(config, occurrences, log);
  }, PRUNE_MS);
  onStop('pruning', async () => clearInterval(timer));
}

import type { Registry as MetricsRegistry } from 'prom-client';
import type { Config } from './config.ts';
import type { Database } from './drizzle/database.ts';
import { BOOTS_PER_DEVICE_MAX } from './ingest/completeness.ts';
import { pruneBoots } from './ingest/completeness-pruning.ts';
import type { Ingest } from './ingest/ingest.ts';
import { pruneQuarantine, QuarantineMetrics } from './ingest/quarantine-pruning.ts';
import { Reinjection, type ReinjectionParts } from './ingest/reinjection.ts';
import { reasonOf } from './errors.ts';
import type { Logger } from './log.ts';
import { writeAudit } from './registry/audit.ts';
import type { Registry } from './registry/registry.ts';

/** What {@link watchQuarantine} joins. */
export interface QuarantineWatchParts {
  readonly registry: {
    readonly devices: Pick<Registry['devices'], 'quarantinedIds'>;
    readonly revocations: Pick<Registry['revocations'], 'onQuarantineChanged' | 'onRecheck'>;
  };
  readonly ingest: Pick<Ingest, 'setQuarantined'>;
  readonly log: Logger;
}

/**
 * Lets ingest know which devices are in quarantine as a whole: at once of what this program does, within
 * milliseconds of what another one does, and after a time in which nothing was heard of all.
 * @throws {StoreUnavailableError} when the database is away.
 */
export async function watchQuarantine(parts: QuarantineWatchParts): Promise<void> {
  const { registry, ingest, log } = parts;
  const { devices, revocations } = registry;
  const known = new Set<number>();
  const set = (deviceId: number, isQuarantined: boolean): void => {
    if (isQuarantined) known.add(deviceId);
    else known.delete(deviceId);
    ingest.setQuarantined(deviceId, isQuarantined);
  };
  const recheck = async (): Promise<void> => {
    const quarantined = await devices.quarantinedIds();
    for (const deviceId of known) if (!quarantined.has(deviceId)) set(deviceId, false);
    for (const deviceId of quarantined) set(deviceId, true);
  };
  revocations.onQuarantineChanged(({ deviceId, isQuarantined }) => set(deviceId, isQuarantined));
  revocations.onRecheck(() => {
    recheck().catch((err: unknown) => {
      log.warn({ err: reasonOf(err) }, 'quarantined devices not read');
    });
  });
  await recheck();
}

/** What sends messages of quarantine through the pipeline again. */
export function createReinjection(
  config: Config,
  parts: Pick<ReinjectionParts, 'database' | 'ingest' | 'keptMs'>,
): Reinjection {
  return new Reinjection({
    ...parts,
    writeAudit,
    ageMaxMs: config.IMPORT_AGE_MAX_D * 86_400_000,
    timeoutMs: config.HTTP_INGEST_TIMEOUT_S * 1000,
  });
}

/** Makes what deletes old messages from quarantine and forgets old boots, to be called every minute. */
export function createPruning(
  config: Config,
  { pool }: Database,
  { metricsRegistry, log }: { metricsRegistry: MetricsRegistry; log: Logger },
): () => void {
  const metrics = new QuarantineMetrics(metricsRegistry);
  const bounds = {
    ageMaxMs: config.QUARANTINE_AGE_MAX_D * 86_400_000,
    rowsPerDeviceMax: config.QUARANTINE_ROWS_PER_DEVICE_MAX,
    apartRowsPerDeviceMax: config.QUARANTINE_DEVICE_ROWS_MAX,
  };
  return () => {
    const pruned = Promise.all([
      pruneQuarantine(pool, bounds, metrics),
      pruneBoots(pool, BOOTS_PER_DEVICE_MAX),
    ]);
    pruned.catch((err: unknown) => {
      log.warn({ err: reasonOf(err) }, 'quarantine not pruned, will be tried again');
    });
  };
}

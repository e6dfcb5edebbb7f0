import type { Ingest } from './ingest/ingest.ts';
import { reasonOf } from './errors.ts';
import type { Logger } from './log.ts';
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

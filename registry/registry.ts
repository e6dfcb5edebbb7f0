import type { Registry as MetricsRegistry } from 'prom-client';
import type { Database } from '../drizzle/database.ts';
import type { Logger } from '../log.ts';
import { createApiKeys, type ApiKeys } from './api-keys.ts';
import { createDevices, type Devices } from './devices.ts';
import { KeyVerifier } from './key-verifier.ts';
import { LastUsed } from './last-used.ts';
import { createMetricList, type MetricList } from './metric-list.ts';
import { createRegistryMetrics } from './metrics.ts';
import { createOrganizations, type Organizations } from './organizations.ts';
import type { KeyVerdict } from './principal.ts';
import { Revocations } from './revocations.ts';

/** Who there is and who may what: organizations, devices, keys. */
export interface Registry {
  readonly organizations: Organizations;
  readonly devices: Devices;
  readonly apiKeys: ApiKeys;
  readonly metricList: MetricList;
  readonly revocations: Revocations;
  /** Says whom a key speaks for. Never rejects; mostly answered from memory. */
  verifyKey(key: string): Promise<KeyVerdict>;
  /**
   * Begins to listen for revocations. @throws {StoreUnavailableError} when the database is away.
   */
  start(): Promise<void>;
  /** Ends what runs in the background. The pool is the caller's. */
  stop(): Promise<void>;
}

/** What {@link createRegistry} needs. */
export interface RegistryDeps {
  readonly database: Pick<Database, 'pool' | 'orm' | 'url'>;
  readonly metricsRegistry: MetricsRegistry;
  readonly log: Logger;
  /** Most devices of one organization. */
  readonly devicesMax: number;
  /** Bound of a connect to the database. */
  readonly databaseTimeoutMs: number;
}

/** Joins the parts of the registry. Does no work before {@link Registry.start}. */
export function createRegistry(deps: RegistryDeps): Registry {
  const { database, metricsRegistry, log, devicesMax, databaseTimeoutMs } = deps;
  const revocations = new Revocations({ url: database.url, timeoutMs: databaseTimeoutMs, log });
  const metrics = createRegistryMetrics(metricsRegistry, () => revocations.isListening);
  const lastUsed = new LastUsed(database.pool, log);
  const verifier = new KeyVerifier({
    pool: database.pool,
    revocations,
    log,
    onUsed: (keyId) => lastUsed.note(keyId),
    onVerdict: (verdict) => metrics.countVerdict(verdict),
  });
  return {
    organizations: createOrganizations({ database, revocations }),
    devices: createDevices({ database, revocations, devicesMax }),
    apiKeys: createApiKeys({ database, revocations }),
    metricList: createMetricList({ database }),
    revocations,
    verifyKey: (key) => verifier.verify(key),
    start: () => revocations.start(),
    async stop() {
      await lastUsed.stop();
      await revocations.stop();
    },
  };
}

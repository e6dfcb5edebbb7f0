import type { Registry as MetricsRegistry } from 'prom-client';
import type { Database } from '../drizzle/database.ts';
import type { RetentionBounds } from '../drizzle/retention.ts';
import type { Logger } from '../log.ts';
import { createAdminKeys, type AdminKeys } from './admin-keys.ts';
import { createApiKeys, type ApiKeys } from './api-keys.ts';
import { CertificateLookup } from './certificate-lookup.ts';
import { DeviceChanges } from './device-changes.ts';
import { createDevices, type Devices } from './devices.ts';
import type { DeviceEventBounds } from './device-event-pruning.ts';
import { DeviceEvents } from './device-events.ts';
import { createDiagnostics, type Diagnostics } from './diagnostics.ts';
import { createIntegratorKeys, type IntegratorKeys } from './integrator-keys.ts';
import { KeyVerifier } from './key-verifier.ts';
import { createKeyParts, type KeyParts, type KeySettings } from './keys/key-parts.ts';
import { LastUsed } from './last-used.ts';
import { createMetricList, type MetricList } from './metric-list.ts';
import { createDeviceEventMetrics, createRegistryMetrics } from './metrics.ts';
import { createOrganizations, type Organizations } from './organizations.ts';
import type { KeyVerdict } from './principal.ts';
import { createRetention, type Retention } from './retention.ts';
import { Revocations } from './revocations.ts';

/** Who there is and who may what: organizations, devices, keys. */
export interface Registry {
  readonly organizations: Organizations;
  readonly devices: Devices;
  /** Of devices. */
  readonly apiKeys: ApiKeys;
  readonly integratorKeys: IntegratorKeys;
  readonly adminKeys: AdminKeys;
  /** Rotation of keys, claim keys, claims and batches of devices. */
  readonly keys: KeyParts;
  readonly metricList: MetricList;
  readonly retention: Retention;
  readonly revocations: Revocations;
  /** Tells of devices that are new, gone, or have other tags or another type. */
  readonly deviceChanges: DeviceChanges;
  /** Takes what happens to connections. */
  readonly deviceEvents: DeviceEvents;
  /** Shows what happened to connections. */
  readonly diagnostics: Diagnostics;
  /** Says whom a key speaks for. Never rejects; mostly answered from memory. */
  verifyKey(key: string): Promise<KeyVerdict>;
  /** Says which device a client certificate speaks for; see {@link CertificateLookup.verify}. */
  verifyCertificate(identity: string, fingerprint: string): Promise<KeyVerdict>;
  /** Those of these devices that a certificate would be let in for now. @throws {StoreUnavailableError} */
  activeDeviceIds(deviceIds: readonly number[]): Promise<Set<number>>;
  /**
   * Begins to listen for revocations and to prune the history of connections.
   * @throws {StoreUnavailableError} when the database is away.
   */
  start(): Promise<void>;
  /** Writes what waits and ends what runs in the background. The pool is the caller's. */
  stop(): Promise<void>;
}

/** What {@link createRegistry} needs. */
export interface RegistryDeps {
  readonly database: Pick<Database, 'pool' | 'tenantRole' | 'url'>;
  readonly metricsRegistry: MetricsRegistry;
  readonly log: Logger;
  /** Most devices of one organization. */
  readonly devicesMax: number;
  /** Most integrator keys of one organization that are neither revoked nor expired. */
  readonly integratorKeysMax: number;
  /** Rows of the history of connections that may be in memory. */
  readonly deviceEventsQueueMax: number;
  /** Rows of the history of connections that are kept. */
  readonly deviceEventBounds: DeviceEventBounds;
  /** Between which an organization may choose how long its data is kept. */
  readonly retentionBounds: RetentionBounds;
  readonly keys: KeySettings;
  /** Bound of a connect to the database. */
  readonly databaseTimeoutMs: number;
}

/** Joins the parts of the registry. Does no work before {@link Registry.start}. */
export function createRegistry(deps: RegistryDeps): Registry {
  const { database, metricsRegistry, log, devicesMax, databaseTimeoutMs } = deps;
  const revocations = new Revocations({ url: database.url, timeoutMs: databaseTimeoutMs, log });
  const metrics = createRegistryMetrics(metricsRegistry, () => revocations.isListening);
  const lastUsed = new LastUsed(database.pool, log);
  const deviceChanges = new DeviceChanges();
  const keys = createKeyParts({
    ...deps.keys,
    database,
    revocations,
    changes: deviceChanges,
    devicesMax,
    metricsRegistry,
    log,
  });
  const verifier = new KeyVerifier({
    pool: database.pool,
    revocations,
    log,
    now: deps.keys.now,
    activate: (principal) => keys.activation.activate(principal),
    onRetiringUsed: (principal) => keys.activation.retiringUsed(principal),
    onUsed: (keyId) => lastUsed.note(keyId),
    onVerdict: (verdict) => metrics.countVerdict(verdict),
  });
  const certificates = new CertificateLookup(database.pool, revocations, log);
  const deviceEvents = new DeviceEvents({
    pool: database.pool,
    log,
    now: () => performance.now(),
    rowsMax: deps.deviceEventsQueueMax,
    bounds: deps.deviceEventBounds,
    createMetrics: (rows) =>
      createDeviceEventMetrics(metricsRegistry, rows, deps.deviceEventsQueueMax),
  });
  return {
    organizations: createOrganizations({ database, revocations }),
    devices: createDevices({ database, revocations, changes: deviceChanges, devicesMax }),
    apiKeys: createApiKeys({ database, revocations }),
    adminKeys: createAdminKeys(database, revocations),
    integratorKeys: createIntegratorKeys({
      database,
      revocations,
      keysMax: deps.integratorKeysMax,
    }),
    keys,
    metricList: createMetricList({ database }),
    retention: createRetention(database, deps.retentionBounds),
    revocations,
    deviceChanges,
    deviceEvents,
    diagnostics: createDiagnostics(database),
    verifyKey: (key) => verifier.verify(key),
    verifyCertificate: (identity, fingerprint) => certificates.verify(identity, fingerprint),
    activeDeviceIds: (deviceIds) => certificates.activeDeviceIds(deviceIds),
    async start() {
      await revocations.start();
      deviceEvents.start();
    },
    async stop() {
      await deviceEvents.stop();
      await lastUsed.stop();
      await revocations.stop();
    },
  };
}

import type { Registry as MetricsRegistry } from 'prom-client';
import { createApi } from './api/server.ts';
import type { Broker } from './broker/broker.ts';
import type { Gate } from './broker/gate/gate.ts';
import type { ListenerParts } from './broker/gate/listeners.ts';
import { createWebSocketIntake } from './broker/gate/websocket.ts';
import type { Config } from './config.ts';
import type { DownlinkDesk } from './downlink.ts';
import type { Database } from './drizzle/database.ts';
import { findPackageRoot } from './drizzle/package-root.ts';
import { createCompleteness } from './ingest/completeness.ts';
import { createHistory } from './ingest/history.ts';
import { HttpIntake } from './ingest/http-intake.ts';
import { Imports, type ImportLimits } from './ingest/import/imports.ts';
import type { Ingest } from './ingest/ingest.ts';
import { createOccurrences } from './ingest/occurrences.ts';
import { createQuarantine } from './ingest/quarantine.ts';
import { createHealth, readVersion } from './joints.ts';
import type { Logger } from './log.ts';
import { createReinjection } from './quarantine-joints.ts';
import type { RuleDesk } from './rule-engine.ts';
import { writeAudit } from './registry/audit.ts';
import type { Registry } from './registry/registry.ts';
import type { Store } from './store.ts';

/** What HTTP is joined with. */
export interface WebDeps extends Store, RuleDesk, DownlinkDesk {
  readonly config: Config;
  readonly database: Database;
  readonly registry: Registry;
  readonly gate: Gate;
  readonly broker: Broker;
  readonly metricsRegistry: MetricsRegistry;
  readonly log: Logger;
  readonly onStop: (name: string, close: () => Promise<void>) => void;
}

/** Listens for HTTP, and for MQTT over WebSocket on the same port. */
export async function openWeb(deps: WebDeps, listening: ListenerParts): Promise<{ port: number }> {
  const { config, database, registry, ingest, gate, metricsRegistry, log, onStop } = deps;
  const intake = createHttpIntake(config, { ingest, registry }, deps.broker);
  const imports = createImports(config, { database, ingest, registry }, { metricsRegistry, log });
  const api = await createApi({
    log,
    registry,
    guard: gate.guard,
    addressOf: (request) => gate.proxies.clientOf(request),
    history: createHistory(database),
    occurrences: createOccurrences(database),
    completeness: createCompleteness(database),
    quarantine: createQuarantine(database, writeAudit),
    reinjection: createReinjection(config, {
      database,
      ingest,
      keptMs: replayAgeMaxMs(config, registry),
    }),
    intake,
    imports,
    rules: deps.rules,
    alerts: deps.alerts,
    silences: deps.silences,
    notify: deps.notify,
    explanations: deps.explanations,
    backtests: deps.backtests,
    actionRuns: deps.actionRuns,
    commands: deps.commands,
    commandDesk: deps.commandDesk,
    commandDefinitions: deps.commandDefinitions,
    commandWaits: deps.commandWaits,
    devicePolls: deps.devicePolls,
    configurations: deps.configurations,
    ota: deps.ota,
    campaigns: deps.campaigns,
    keyRotations: deps.keyRotations,
    claims: deps.claims,
    now: Date.now,
    health: createHealth(database, deps),
    metricsRegistry,
    version: readVersion(findPackageRoot()),
    packetBytesMax: config.PACKET_BYTES_MAX,
    pageRowsMax: config.PAGE_ROWS_MAX,
  });
  const webSockets = createWebSocketIntake({
    packetBytesMax: config.PACKET_BYTES_MAX,
    ...listening,
  });
  api.server.on('upgrade', (...upgrade) => webSockets.upgrade(...upgrade));
  const { port } = await api.listen({ host: config.HTTP_HOST, port: config.HTTP_PORT });
  onStop('HTTP listener', async () => {
    webSockets.close();
    intake.stop();
    deps.commandWaits.stop();
    await Promise.all([imports.stop(), api.close()]);
  });
  return { port };
}

/** Longest silence in the file of an import. */
const IMPORT_IDLE_MS = 60_000;

/** The settings of imports in their own words. */
export function importLimits(config: Config): ImportLimits {
  return {
    runsMax: config.IMPORTS_MAX,
    bytesMax: config.IMPORT_BYTES_MAX,
    aheadMaxMs: config.READING_AHEAD_MAX_S * 1000,
    refusalsMax: config.IMPORT_REFUSALS_MAX,
    idleMs: IMPORT_IDLE_MS,
  };
}

/**
 * How old readings may be that an admin brings, in ms: as old as the organization keeps them. Older ones
 * would be deleted at once, and would falsify the aggregates that outlive them.
 */
export function replayAgeMaxMs(
  config: Config,
  { retention }: Pick<Registry, 'retention'>,
): (organizationId: number) => Promise<number> {
  return async (organizationId) => {
    const classes = await retention.get(organizationId);
    const rawDays = classes.find(({ name }) => name === 'raw')?.days ?? Infinity;
    return Math.min(rawDays, config.IMPORT_AGE_MAX_D) * 86_400_000;
  };
}

/** What takes messages of devices over HTTP, and shows them to who subscribes to them. */
export function createHttpIntake(
  config: Config,
  { ingest, registry }: { ingest: Ingest; registry: Registry },
  { fanOut }: Broker,
): HttpIntake {
  return new HttpIntake({
    ingest,
    subscribers: {
      isWanted: (topic) => fanOut.isWanted(topic),
      publish: (topic, payload) => fanOut.publish({ topic, payload, qos: 1, retain: false }),
    },
    timeoutMs: config.HTTP_INGEST_TIMEOUT_S * 1000,
    aheadMaxMs: config.READING_AHEAD_MAX_S * 1000,
    ageMaxMs: replayAgeMaxMs(config, registry),
  });
}

/** The imports; what is stored of a device ends when it is deleted. */
export function createImports(
  config: Config,
  { database, ingest, registry }: { database: Database; ingest: Ingest; registry: Registry },
  { metricsRegistry, log }: { metricsRegistry: MetricsRegistry; log: Logger },
): Imports {
  const imports = new Imports({
    database,
    ingest,
    writeAudit,
    limits: importLimits(config),
    ageMaxMs: replayAgeMaxMs(config, registry),
    registry: metricsRegistry,
    log,
  });
  registry.revocations.onRevoked(({ deviceId, deleted }) => {
    if (deviceId !== undefined && deleted !== undefined) imports.forgetDevice(deviceId);
  });
  return imports;
}

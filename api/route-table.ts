import type { Logger } from '../log.ts';
import type { Registry as MetricsRegistry } from 'prom-client';
import { z } from 'zod';
import type { CommandDefinitions } from '../commands/definitions.ts';
import type { CommandDesk } from '../commands/command-desk.ts';
import type { Campaigns } from '../commands/campaign/campaign.ts';
import type { Commands } from '../commands/commands.ts';
import type { DevicePolls } from '../commands/device-polls.ts';
import type { CommandWaits } from '../commands/waits.ts';
import type { Configurations } from '../configuration/configuration.ts';
import type { Completeness } from '../ingest/completeness.ts';
import type { History } from '../ingest/history.ts';
import type { Occurrences } from '../ingest/occurrences.ts';
import type { Imports } from '../ingest/import/imports.ts';
import type { Quarantine } from '../ingest/quarantine.ts';
import type { Reinjection } from '../ingest/reinjection.ts';
import type { Ota } from '../ota/ota.ts';
import type { Claims } from '../registry/keys/claims.ts';
import type { KeyRotations } from '../registry/keys/key-rotations.ts';
import type { Registry } from '../registry/registry.ts';
import type { ActionRuns } from '../rules/action/action-runs.ts';
import type { Alerts } from '../rules/alert/alerts.ts';
import type { Backtests } from '../rules/backtest/backtests.ts';
import type { Explanations } from '../rules/explain/explanations.ts';
import type { RuleStore } from '../rules/rule-store.ts';
import type { NotifyStores } from '../rules/notify/stores.ts';
import type { Silences } from '../rules/notify/silences.ts';
import { defineRoute, type Route } from './route.ts';
import { adminKeyRoutes } from './routes/admin-keys.ts';
import { alertRoutes } from './routes/alerts.ts';
import { backtestRoutes } from './routes/backtest.ts';
import { campaignRoutes } from './routes/campaigns.ts';
import { commandDefinitionRoutes } from './routes/command-definitions.ts';
import { commandRoutes } from './routes/commands.ts';
import { claimKeyRoutes } from './routes/claim-keys.ts';
import { claimRoutes } from './routes/claims.ts';
import { completenessRoutes } from './routes/completeness.ts';
import { configurationRoutes } from './routes/configuration.ts';
import { configurationTypeRoutes } from './routes/configuration-types.ts';
import { diagnosticRoutes } from './routes/diagnostics.ts';
import { aggregateRoutes } from './routes/aggregates.ts';
import { explainRoutes } from './routes/explain.ts';
import { firmwareDownloadRoutes } from './routes/firmware-download.ts';
import { firmwareSignerRoutes } from './routes/firmware-signers.ts';
import { firmwareRoutes } from './routes/firmware.ts';
import { deviceCommandRoutes } from './routes/device-commands.ts';
import { deviceBatchRoutes } from './routes/device-batches.ts';
import { deviceRoutes } from './routes/devices.ts';
import { importRoutes } from './routes/import.ts';
import { ingestRoutes, type IngestPort } from './routes/ingest.ts';
import { integratorKeyRoutes } from './routes/integrator-keys.ts';
import { keyRotationRoutes } from './routes/key-rotations.ts';
import { keyRoutes } from './routes/keys.ts';
import { notificationRouteRoutes } from './routes/notification-routes.ts';
import { notificationRoutes } from './routes/notifications.ts';
import { occurrenceRoutes } from './routes/occurrences.ts';
import { operationRoutes, type Health } from './routes/operation.ts';
import { quarantineRoutes } from './routes/quarantine.ts';
import { readingRoutes } from './routes/readings.ts';
import { receiverRoutes } from './routes/receivers.ts';
import { retentionRoutes } from './routes/retention.ts';
import { ruleActionRoutes } from './routes/rule-actions.ts';
import { ruleRoutes } from './routes/rules.ts';
import { silenceRoutes } from './routes/silences.ts';
import { updateRoutes } from './routes/updates.ts';

/** What the routes work with. */
export interface RouteDeps {
  readonly registry: Pick<
    Registry,
    | 'devices'
    | 'apiKeys'
    | 'integratorKeys'
    | 'adminKeys'
    | 'keys'
    | 'metricList'
    | 'retention'
    | 'diagnostics'
  >;
  readonly keyRotations: KeyRotations;
  readonly claims: Claims;
  readonly history: History;
  readonly occurrences: Occurrences;
  readonly completeness: Completeness;
  readonly quarantine: Quarantine;
  readonly reinjection: Pick<Reinjection, 'one' | 'many'>;
  /** Takes payloads over HTTP. */
  readonly intake: IngestPort;
  readonly imports: Imports;
  readonly rules: RuleStore;
  readonly alerts: Alerts;
  readonly silences: Silences;
  readonly notify: NotifyStores;
  readonly explanations: Explanations;
  readonly backtests: Backtests;
  readonly actionRuns: ActionRuns;
  readonly commands: Commands;
  readonly commandDesk: CommandDesk;
  readonly commandDefinitions: CommandDefinitions;
  readonly campaigns: Campaigns;
  readonly configurations: Configurations;
  readonly ota: Pick<Ota, 'firmware' | 'signers' | 'updates' | 'downloads'>;
  /** Requests that wait for what becomes of their command. */
  readonly commandWaits: Pick<CommandWaits, 'outcome'>;
  /** Devices that ask for their commands over HTTP. */
  readonly devicePolls: Pick<DevicePolls, 'next' | 'acknowledge'>;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly log: Logger;
  readonly health: Health;
  readonly metricsRegistry: MetricsRegistry;
  /** Of the program, as `/health/live` and the OpenAPI document tell it. */
  readonly version: string;
  /** Largest payload of a device. */
  readonly packetBytesMax: number;
  /** Largest `limit` of a list. */
  readonly pageRowsMax: number;
}

/**
 * Every route of the API, in the order of the documentation.
 * @param openApi makes the OpenAPI document once all routes are known.
 */
export function createRouteTable(deps: RouteDeps, openApi: () => object): Route[] {
  const { registry, history, occurrences, pageRowsMax } = deps;
  const { devices, apiKeys, integratorKeys, keys, metricList, diagnostics } = registry;
  return [
    ...deviceRoutes(devices, pageRowsMax),
    ...deviceBatchRoutes({ batches: keys.batches, ...keys.settings }),
    ...keyRoutes(apiKeys, keys.settings.address, pageRowsMax),
    ...keyRotationRoutes(deps.keyRotations),
    ...claimKeyRoutes({ ...keys, ...keys.settings, pageRowsMax }),
    ...claimRoutes(deps.claims, pageRowsMax),
    ...integratorKeyRoutes(integratorKeys, pageRowsMax),
    ...adminKeyRoutes(registry.adminKeys, pageRowsMax),
    ...readingRoutes({ devices, metricList, history, pageRowsMax }),
    ...aggregateRoutes({ devices, history, pageRowsMax }),
    ...retentionRoutes(registry.retention),
    ...occurrenceRoutes({ devices, occurrences, pageRowsMax }),
    ...ingestRoutes({ intake: deps.intake, devices, packetBytesMax: deps.packetBytesMax }),
    ...importRoutes(deps.imports, pageRowsMax),
    ...completenessRoutes(deps.completeness, devices),
    ...quarantineRoutes({ ...deps, devices }),
    ...ruleRoutes(deps),
    ...ruleActionRoutes(deps),
    ...backtestRoutes(deps),
    ...explainRoutes(deps),
    ...alertRoutes({ ...deps, devices }),
    ...silenceRoutes(deps),
    ...receiverRoutes(deps),
    ...notificationRouteRoutes(deps),
    ...notificationRoutes(deps),
    ...commandRoutes({ ...deps, devices }),
    ...commandDefinitionRoutes(deps),
    ...campaignRoutes(deps),
    ...configurationRoutes(deps),
    ...configurationTypeRoutes(deps),
    ...deviceCommandRoutes(deps.devicePolls),
    ...updateRoutes(deps),
    ...firmwareRoutes(deps),
    ...firmwareSignerRoutes(deps),
    ...firmwareDownloadRoutes(deps),
    ...diagnosticRoutes(diagnostics, devices, pageRowsMax),
    ...operationRoutes(deps.health, deps.metricsRegistry, deps.version),
    defineRoute({
      method: 'GET',
      path: '/openapi.json',
      role: 'public',
      tag: 'operation',
      summary: 'This document; /docs shows it to people',
      answers: { 200: { description: 'OpenAPI 3.1.', schema: z.looseObject({}) } },
      async handle() {
        return { status: 200, body: openApi() };
      },
    }),
  ];
}

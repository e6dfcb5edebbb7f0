import type { Logger } from '../log.ts';
import type { Registry as MetricsRegistry } from 'prom-client';
import { z } from 'zod';
import type { Completeness } from '../ingest/completeness.ts';
import type { History } from '../ingest/history.ts';
import type { Occurrences } from '../ingest/occurrences.ts';
import type { Imports } from '../ingest/import/imports.ts';
import type { Quarantine } from '../ingest/quarantine.ts';
import type { Reinjection } from '../ingest/reinjection.ts';
import type { Registry } from '../registry/registry.ts';
import type { Alerts } from '../rules/alert/alerts.ts';
import type { Backtests } from '../rules/backtest/backtests.ts';
import type { Explanations } from '../rules/explain/explanations.ts';
import type { RuleStore } from '../rules/rule-store.ts';
import type { NotifyStores } from '../rules/notify/stores.ts';
import type { Silences } from '../rules/notify/silences.ts';
import { defineRoute, type Route } from './route.ts';
import { alertRoutes } from './routes/alerts.ts';
import { backtestRoutes } from './routes/backtest.ts';
import { completenessRoutes } from './routes/completeness.ts';
import { diagnosticRoutes } from './routes/diagnostics.ts';
import { aggregateRoutes } from './routes/aggregates.ts';
import { explainRoutes } from './routes/explain.ts';
import { deviceRoutes } from './routes/devices.ts';
import { importRoutes } from './routes/import.ts';
import { ingestRoutes, type IngestPort } from './routes/ingest.ts';
import { integratorKeyRoutes } from './routes/integrator-keys.ts';
import { keyRoutes } from './routes/keys.ts';
import { notificationRouteRoutes } from './routes/notification-routes.ts';
import { notificationRoutes } from './routes/notifications.ts';
import { occurrenceRoutes } from './routes/occurrences.ts';
import { operationRoutes, type Health } from './routes/operation.ts';
import { quarantineRoutes } from './routes/quarantine.ts';
import { readingRoutes } from './routes/readings.ts';
import { receiverRoutes } from './routes/receivers.ts';
import { retentionRoutes } from './routes/retention.ts';
import { ruleRoutes } from './routes/rules.ts';
import { silenceRoutes } from './routes/silences.ts';

/** What the routes work with. */
export interface RouteDeps {
  readonly registry: Pick<
    Registry,
    'devices' | 'apiKeys' | 'integratorKeys' | 'metricList' | 'retention' | 'diagnostics'
  >;
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
  const { devices, apiKeys, integratorKeys, metricList, diagnostics } = registry;
  return [
    ...deviceRoutes(devices, pageRowsMax),
    ...keyRoutes(apiKeys, pageRowsMax),
    ...integratorKeyRoutes(integratorKeys, pageRowsMax),
    ...readingRoutes({ devices, metricList, history, pageRowsMax }),
    ...aggregateRoutes({ devices, history, pageRowsMax }),
    ...retentionRoutes(registry.retention),
    ...occurrenceRoutes({ devices, occurrences, pageRowsMax }),
    ...ingestRoutes({ intake: deps.intake, devices, packetBytesMax: deps.packetBytesMax }),
    ...importRoutes(deps.imports, pageRowsMax),
    ...completenessRoutes(deps.completeness, devices),
    ...quarantineRoutes({ ...deps, devices }),
    ...ruleRoutes(deps),
    ...backtestRoutes(deps),
    ...explainRoutes(deps),
    ...alertRoutes({ ...deps, devices }),
    ...silenceRoutes(deps),
    ...receiverRoutes(deps),
    ...notificationRouteRoutes(deps),
    ...notificationRoutes(deps),
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

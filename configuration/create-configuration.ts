import type { Registry as MetricsRegistry } from 'prom-client';
import type { Database } from '../drizzle/database.ts';
import type { Logger } from '../log.ts';
import type {
  ConfigurationLimits,
  ConfigurationPeers,
  Configurations,
  ConfigurationWire,
  WriteAudit,
} from './configuration.ts';
import { createDeviceStore } from './device-store.ts';
import { configurationTopic, publishedVersionOf } from './document-check.ts';
import { ConfigurationMetrics } from './metrics.ts';
import { withdrawOutgrown, type OutgrownParts } from './outgrown.ts';
import { Publisher } from './publisher.ts';
import { committedOf, Renewal } from './renewal.ts';
import { Reports } from './reports.ts';
import { Sweeper } from './sweeper.ts';
import { createTypeStore } from './type-store.ts';

/** What {@link createConfiguration} needs. */
export interface ConfigurationDeps {
  readonly database: Pick<Database, 'pool' | 'tenantRole'>;
  readonly wire: ConfigurationWire;
  readonly writeAudit: WriteAudit;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly limits: ConfigurationLimits;
  readonly metricsRegistry: MetricsRegistry;
  readonly log: Logger;
}

/** The configuration of devices: what people want, what is in topics, what devices say. */
export interface ConfigurationParts {
  readonly configurations: Configurations;
  readonly peers: ConfigurationPeers;
  /** Begins to sweep; the first sweep compares every topic with the database. */
  start(): void;
  /** Sweeps now, and resolves when that has ended. Never rejects. */
  sweep(): Promise<void>;
  /** Ends with what is under way. Reports that wait are not acknowledged. The pool is the caller's. */
  stop(): Promise<void>;
}

/** Joins the parts of configuration. Does no work before {@link ConfigurationParts.start}. */
export function createConfiguration(deps: ConfigurationDeps): ConfigurationParts {
  const { database, wire, writeAudit, now, limits, metricsRegistry, log } = deps;
  const { pool } = database;
  const metrics = new ConfigurationMetrics(metricsRegistry, {
    reportsHeldMax: limits.reportsHeldMax,
    reports: () => reports.waiting,
  });
  const publisher = new Publisher({ wire, pool, versionsMax: limits.versionsMax, metrics, log });
  const reports = new Reports({
    pool,
    publisher,
    metrics,
    heldMax: limits.reportsHeldMax,
    now,
    log,
  });
  const renewal = new Renewal({ database, publisher, metrics, now });
  const sweeper = new Sweeper({
    pool,
    wire,
    publisher,
    renewal,
    metrics,
    sweepMs: limits.sweepMs,
    now,
    log,
  });
  const { documentBytesMax, typesMax } = limits;
  return {
    configurations: {
      ...createDeviceStore({
        database,
        writeAudit,
        documentBytesMax,
        now,
        onVersion(save) {
          metrics.versionsMade(save.cause);
          void publisher.publish([committedOf(save)]);
        },
      }),
      ...createTypeStore({
        database,
        writeAudit,
        renewal,
        renewLater: () => sweeper.renewLater(),
        documentBytesMax,
        typesMax,
      }),
    },
    peers: peersOf({ wire, pool, log, reports, sweeper, publisher }),
    start: () => sweeper.start(),
    sweep: () => sweeper.sweep(),
    async stop() {
      await sweeper.stop();
      await reports.stop();
      await publisher.idle();
    },
  };
}

function peersOf(
  parts: OutgrownParts & { readonly reports: Reports; readonly sweeper: Sweeper },
): ConfigurationPeers {
  const { wire, reports, sweeper, publisher } = parts;
  return {
    reported: (from, report) => reports.take(from, { ...report, isHello: false }),
    async greeted(from, { cfg, mps }) {
      if (mps !== undefined) await withdrawOutgrown(parts, from, mps);
      // Nothing was applied, or nothing is said of it.
      if (cfg === undefined || cfg === 0) return;
      await reports.take(from, { v: cfg, ok: true, isHello: true });
    },
    version: (device) => publishedVersionOf(wire.retained(configurationTopic(device))),
    deviceChanged: (deviceId) => sweeper.deviceChanged(deviceId),
    forgetDevice(device) {
      void publisher.clear(configurationTopic(device));
    },
  };
}

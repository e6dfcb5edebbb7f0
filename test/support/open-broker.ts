import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { Broker } from '../../broker/broker.ts';
import { createDiskPersistence } from '../../broker/store/disk-persistence.ts';
import { openDiskStore, type DiskStore } from '../../broker/store/disk-store.ts';
import { FanOut } from '../../broker/outgoing/fan-out.ts';
import { FanOutMetrics } from '../../broker/outgoing/fan-out-metrics.ts';
import { createGate, type Gate } from '../../broker/gate/gate.ts';
import { createGateMetrics } from '../../broker/gate/gate-metrics.ts';
import { listenTcp } from '../../broker/gate/listeners.ts';
import { createBrokerMetrics } from '../../broker/metrics.ts';
import { createConnectionNumbers } from '../../broker/presence/presence-state.ts';
import { loadConfig, type Config } from '../../config.ts';
import { gateLimits, outboxLimits, storeLimits } from '../../joints.ts';
import type { Logger } from '../../log.ts';
import { OpenPolicy } from './open-policy.ts';

/** A broker without login that is up. */
export interface OpenBroker {
  readonly url: string;
  readonly port: number;
  /** Of its metrics. */
  readonly registry: Registry;
  stop(): Promise<void>;
}

/** Where an open broker listens and keeps its sessions. */
export interface OpenBrokerOptions {
  /** 0: any free port. */
  readonly port?: number;
  /** A folder of its own that goes with the broker when left out. */
  readonly dataDir?: string;
  /** Settings, by the names of their environment variables. */
  readonly settings?: Record<string, string>;
  readonly log?: Logger;
}

/**
 * Starts the listener, frame layer, engine and persistence of the product with a policy that lets
 * everybody in and allows everything, but for subscribing to `test/nosubscribe`. There is no ingest.
 */
export async function startOpenBroker(options: OpenBrokerOptions = {}): Promise<OpenBroker> {
  const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'puback-open-')));
  const config = loadConfig({
    ADDRESS_CONNECTIONS_MAX: '0',
    ADDRESS_CONNECTS_PER_S: '0',
    ADDRESS_UNAUTHENTICATED_MAX: '0',
    ...options.settings,
  });
  const log = options.log ?? pino({ level: 'silent' });
  const registry = new Registry();
  const store = await openDiskStore({
    folder: join(dataDir, 'sessions'),
    limits: storeLimits(config),
    metricsRegistry: registry,
    log,
  });
  const { broker, fanOut, gate } = await startBroker(config, store, registry, log);
  const tcp = await listenTcp(
    { host: '127.0.0.1', port: options.port ?? 0, key: '--port' },
    { ...gate, accept: (connection, peer) => broker.accept(connection, peer), log },
  );
  return {
    url: `mqtt://127.0.0.1:${tcp.port}`,
    port: tcp.port,
    registry,
    async stop() {
      await tcp.close();
      await broker.stop();
      fanOut.stop();
      await store.close();
      if (options.dataDir === undefined) await rm(dataDir, { recursive: true, force: true });
    },
  };
}

async function startBroker(
  config: Config,
  store: DiskStore,
  registry: Registry,
  log: Logger,
): Promise<{ broker: Broker; fanOut: FanOut; gate: Gate }> {
  const metrics = createBrokerMetrics(registry);
  const fanOutMetrics = new FanOutMetrics();
  const limits = outboxLimits(config);
  const fanOut = new FanOut({
    store,
    limits,
    metrics: fanOutMetrics,
    isTelemetry: () => false,
    onDenied: () => metrics.subscribeDenied(),
    log,
  });
  fanOutMetrics.register(registry, limits.queuesBytesMax, () => fanOut.gauges);
  fanOut.start();
  const gate = createGate({
    ...gateLimits(config),
    metrics: createGateMetrics(registry),
    refused: (reason) => metrics.closed(reason),
    log,
  });
  const numbers = createConnectionNumbers(() => Date.now() * 1000);
  const broker = new Broker({
    policy: new OpenPolicy({ fanOut, store }),
    fanOut,
    store,
    incoming: createDiskPersistence(store),
    limits: {
      packetBytesMax: config.PACKET_BYTES_MAX,
      connectDeadlineMs: config.CONNECT_DEADLINE_S * 1000,
    },
    nextConnectionNumber: () => numbers.next(),
    metrics,
    log,
  });
  await broker.start();
  return { broker, fanOut, gate };
}

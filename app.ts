import { uptime } from 'node:os';
import { Registry as MetricsRegistry, collectDefaultMetrics } from 'prom-client';
import { createGateMetrics } from './broker/gate/gate-metrics.ts';
import { createGate, type Gate } from './broker/gate/gate.ts';
import { listenTcp, type Listener, type ListenerParts } from './broker/gate/listeners.ts';
import { openFilesLimit } from './broker/gate/open-files.ts';
import { listenTls } from './broker/gate/tls-listener.ts';
import { createBrokerMetrics, type BrokerMetrics } from './broker/metrics.ts';
import type { PresenceChange } from './broker/presence/presence.ts';
import type { Config } from './config.ts';
import { ConnectionHistory } from './connection-history.ts';
import { readLinkKey } from './downlink-joints.ts';
import { Downlink } from './downlink.ts';
import { openFleet } from './fleet.ts';
import { lockDataFolder } from './drizzle/data-folder-lock.ts';
import { openDatabase, type Database } from './drizzle/database.ts';
import { startEmbedded } from './drizzle/embedded.ts';
import {
  closeRevoked,
  deviceEventBounds,
  gateLimits,
  keySettings,
  retentionBounds,
} from './joints.ts';
import { SteadyClock } from './firmware-protocol/steady-clock.ts';
import { createLog, type Logger } from './log.ts';
import type { Credentials } from './registry/credentials-file.ts';
import { ensureCredentials, writeAddresses } from './registry/first-start.ts';
import { createRegistry, type Registry } from './registry/registry.ts';
import { RuleEngine } from './rule-engine.ts';
import { openStore } from './store.ts';
import { openWeb, type WebDeps } from './web.ts';

/** Where the program can be reached. */
export interface Addresses {
  readonly mqttUrl: string;
  /** Null when TLS is off. */
  readonly mqttsUrl: string | null;
  readonly wsUrl: string;
  readonly httpUrl: string;
  /** The database without user and password. */
  readonly database: string;
}

/** What is known once everything listens. */
export interface Started {
  readonly addresses: Addresses;
  /** Null when `credentials.json` is missing and none was to be made. */
  readonly credentials: Credentials | null;
  /** True when the credentials are new, and so worth showing this once. */
  readonly isIssued: boolean;
}

/** What a caller may change of a program in its own process. */
export interface Overrides {
  readonly log?: Logger;
  /** Issue new keys and write them to `credentials.json`. */
  readonly newAdminKey?: boolean;
  /** Milliseconds since 1970, in place of the machine's clock. */
  readonly now?: () => number;
}

/** The program in one object: tests and the demo run it in their own process. */
export interface App {
  /** Brings everything up, or, when something fails, takes down what was up and throws. */
  start(): Promise<void>;
  /** Takes everything down in reverse order; what was taken in is stored first. May be called twice. */
  stop(): Promise<void>;
  /** @throws {Error} before {@link start} has ended. */
  readonly started: Started;
}

/** Joins the parts. Nothing happens before {@link App.start}. */
export function createApp(config: Config, overrides: Overrides = {}): App {
  const stops: { name: string; close: () => Promise<void> }[] = [];
  const log = overrides.log ?? createLog(config.LOG_LEVEL);
  let started: Started | null = null;
  let starting: Promise<void> | null = null;
  let stopping: Promise<void> | null = null;

  const takeDown = async (): Promise<void> => {
    const deadline = performance.now() + config.SHUTDOWN_TIMEOUT_S * 1000;
    for (let last = stops.pop(); last !== undefined; last = stops.pop()) {
      try {
        await stopInTime(last, deadline, log);
      } catch (err) {
        log.error({ err, part: last.name }, 'part not stopped cleanly');
      }
    }
  };
  const comeUp = async (): Promise<void> => {
    try {
      started = await bringUp(config, overrides, log, (name, close) => {
        stops.push({ name, close });
        if (stopping !== null) throw new Error('stopped during start');
      });
    } catch (cause) {
      await takeDown();
      throw cause;
    }
  };
  return {
    start() {
      starting ??= comeUp();
      return starting;
    },
    stop() {
      stopping ??= (starting ?? Promise.resolve()).then(takeDown, takeDown);
      return stopping;
    },
    get started() {
      if (started === null) throw new Error('the program has not been started');
      return started;
    },
  };
}

type OnStop = (name: string, close: () => Promise<void>) => void;

/** What every step of the start is given. */
interface Context {
  readonly config: Config;
  readonly overrides: Overrides;
  readonly log: Logger;
  readonly metricsRegistry: MetricsRegistry;
  /** Milliseconds since 1970, without steps; see `SteadyClock`. */
  readonly now: () => number;
  /** Registers the end of a part right behind its beginning; ends run in reverse order. */
  readonly onStop: OnStop;
}

/** Who is let in, and the history of who was not. */
function openGate(
  { config, metricsRegistry, log }: Context,
  registry: Registry,
  metrics: BrokerMetrics,
): { gate: Gate; history: ConnectionHistory } {
  const gateMetrics = createGateMetrics(metricsRegistry);
  const history = new ConnectionHistory(registry, (code) => gateMetrics.identityFound(code));
  const gate = createGate({
    ...gateLimits(config),
    openFilesMax: openFilesLimit(),
    metrics: gateMetrics,
    refused(reason, address) {
      metrics.closed(reason);
      history.turnedAway(reason, address);
    },
    log,
  });
  return { gate, history };
}

/** The parts in the order in which a message meets them. */
async function bringUp(
  config: Config,
  overrides: Overrides,
  log: Logger,
  onStop: OnStop,
): Promise<Started> {
  const metricsRegistry = new MetricsRegistry();
  collectDefaultMetrics({ register: metricsRegistry });
  const now = overrides.now ?? createClock(log).now;
  const context: Context = { config, overrides, log, metricsRegistry, now, onStop };
  const database = await openStorage(context);
  const registry = await openRegistry(context, database);
  const first = await ensureCredentials({
    database,
    dataDir: config.DATA_DIR,
    reissue:
      overrides.newAdminKey === true
        ? 'always'
        : config.DATABASE_URL === ''
          ? 'when missing'
          : 'never',
  });
  const engine = await RuleEngine.open({ ...context, database, registry });
  const { observer } = engine;
  const store = await openStore({ ...context, database, registry, observer });
  const metrics = createBrokerMetrics(metricsRegistry);
  const { gate, history } = openGate(context, registry, metrics);
  const { guard } = gate;
  const { ingest } = store;
  const onPresence = (change: PresenceChange): void => engine.presenceChanged(change);
  const alertTopics = (): Iterable<string> => engine.alertTopics;
  const told = { onPresence, alertTopics };
  const linkKey = await readLinkKey(config);
  const downlink = new Downlink({ ...context, database, registry, linkKey });
  const joined = {
    ...{ ...context, database, registry, ingest, guard, history, metrics, ...told },
    downlink: downlink.port,
  };
  const fleet = await openFleet(joined);
  const { broker } = fleet;
  closeRevoked(registry, broker, log);
  await downlink.start(fleet);
  const desk = await engine.start({ ingest, fleet, sendCommand: downlink.sendOfRule });
  const parts = {
    ...context,
    ...store,
    ...desk,
    ...downlink.desk,
    database,
    registry,
    gate,
    broker,
  };
  const addresses = await listen(parts);
  downlink.listensAt(addresses.httpUrl);
  onStop('listening for silence', async () => engine.listensNoMore());
  if (first.credentials === null) return { addresses, credentials: null, isIssued: false };
  const credentials = await writeAddresses(config.DATA_DIR, first.credentials, addresses);
  return { addresses, credentials, isIssued: first.issued };
}

function createClock(log: Logger): SteadyClock {
  const sources = {
    wall: () => Date.now(),
    monotonic: () => performance.now(),
    uptime: () => uptime() * 1000,
  };
  return new SteadyClock(sources, ({ byMs, isBelieved }) => {
    const outcome = isBelieved
      ? 'the wall clock was set, and is followed'
      : 'the wall clock was set, and is not believed yet';
    log.warn({ byMs }, outcome);
  });
}

async function openStorage({ config, log, onStop }: Context): Promise<Database> {
  onStop('data folder', await lockDataFolder(config.DATA_DIR));
  let url = config.DATABASE_URL;
  if (url === '') {
    const embedded = await startEmbedded({ dataDir: config.DATA_DIR, log });
    onStop('embedded database', () => embedded.stop());
    url = embedded.url;
  }
  const database = await openDatabase({
    url,
    connectionsMax: config.DATABASE_CONNECTIONS_MAX,
    timeoutMs: config.DATABASE_TIMEOUT_S * 1000,
    log,
  });
  onStop('database', () => database.close());
  return database;
}

async function openRegistry(context: Context, database: Database): Promise<Registry> {
  const { config, log, metricsRegistry, onStop } = context;
  const registry = createRegistry({
    database,
    metricsRegistry,
    log,
    devicesMax: config.ORGANIZATION_DEVICES_MAX,
    integratorKeysMax: config.INTEGRATOR_KEYS_MAX,
    deviceEventsQueueMax: config.DEVICE_EVENTS_QUEUE_MAX,
    deviceEventBounds: deviceEventBounds(config),
    retentionBounds: retentionBounds(config),
    keys: keySettings(config),
    databaseTimeoutMs: config.DATABASE_TIMEOUT_S * 1000,
  });
  await registry.start();
  onStop('registry', () => registry.stop());
  return registry;
}

/** Opens the listeners last: who can connect finds everything in place. */
async function listen(parts: Context & WebDeps): Promise<Addresses> {
  const { config, log, onStop } = parts;
  const { door, proxies, metrics } = parts.gate;
  const listening: ListenerParts = {
    door,
    proxies,
    metrics,
    accept: (connection, peer) => parts.broker.accept(connection, peer),
    log,
  };
  const tcp = await listenTcp(
    { host: config.MQTT_HOST, port: config.MQTT_PORT, key: 'MQTT_PORT' },
    listening,
  );
  onStop('MQTT listener', () => tcp.close());
  const tls = await listenTlsWhenSet(parts, listening);
  const http = await openWeb(parts, listening);
  const addresses: Addresses = {
    mqttUrl: `mqtt://${urlHost(config.MQTT_HOST)}:${tcp.port}`,
    mqttsUrl: tls === null ? null : `mqtts://${urlHost(config.MQTT_HOST)}:${tls.port}`,
    wsUrl: `ws://${urlHost(config.HTTP_HOST)}:${http.port}/mqtt`,
    httpUrl: `http://${urlHost(config.HTTP_HOST)}:${http.port}`,
    database: describeDatabase(config, parts.database),
  };
  log.info({ ...addresses }, 'listening');
  return addresses;
}

async function listenTlsWhenSet(
  { config, onStop }: Context,
  listening: ListenerParts,
): Promise<Listener | null> {
  if (config.TLS_CERT_FILE === '') return null;
  const tls = await listenTls(
    { host: config.MQTT_HOST, port: config.MQTTS_PORT, key: 'MQTTS_PORT' },
    {
      files: {
        certFile: config.TLS_CERT_FILE,
        keyFile: config.TLS_KEY_FILE,
        clientCaFile: config.TLS_CLIENT_CA_FILE,
        clientCrlFile: config.TLS_CLIENT_CRL_FILE,
      },
      reloadMs: config.TLS_RELOAD_S * 1000,
      handshakeMs: config.CONNECT_DEADLINE_S * 1000,
    },
    listening,
  );
  onStop('MQTT over TLS listener', () => tls.close());
  return tls;
}

/** What a client on this machine can put into a URL for an address that stands for all of them. */
function urlHost(host: string): string {
  if (host === '0.0.0.0' || host === '::') return '127.0.0.1';
  return host.includes(':') ? `[${host}]` : host;
}

function describeDatabase(config: Config, { serverVersion, capabilities }: Database): string {
  const place = config.DATABASE_URL === '' ? 'embedded' : 'external';
  const kind = capabilities.hypertables ? 'with TimescaleDB' : 'native partitions';
  return `PostgreSQL ${serverVersion}, ${place}, ${kind}`;
}

/** Longest overtime of the parts that stop behind the deadline, each, in ms. */
const OVERTIME_MS = 1000;
/** The embedded server has an end of its own, which must not be cut short. */
const UNHURRIED: ReadonlySet<string> = new Set(['embedded database']);

/** Waits for a part to stop, and goes on without it when it takes too long. */
async function stopInTime(
  { name, close }: { readonly name: string; readonly close: () => Promise<void> },
  deadline: number,
  log: Logger,
): Promise<void> {
  if (UNHURRIED.has(name)) return close();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    const leftMs = Math.max(OVERTIME_MS, deadline - performance.now());
    timer = setTimeout(() => {
      log.warn({ part: name }, 'part not stopped in time, going on without it');
      resolve();
    }, leftMs);
  });
  await Promise.race([close(), late]);
  clearTimeout(timer);
}

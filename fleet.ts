import { join } from 'node:path';
import type { Registry as MetricsRegistry } from 'prom-client';
import { Broker } from './broker/broker.ts';
import { ConnectRate } from './broker/gate/connect-rate.ts';
import type { DeviceClient, DeviceParts } from './broker/device-client.ts';
import { createDiskPersistence } from './broker/store/disk-persistence.ts';
import { openDiskStore, type DiskStore } from './broker/store/disk-store.ts';
import { FanOut } from './broker/outgoing/fan-out.ts';
import { FanOutMetrics } from './broker/outgoing/fan-out-metrics.ts';
import { FleetPolicy } from './broker/fleet-policy.ts';
import { Greetings } from './broker/greeting.ts';
import { isSessionOf, keyIdOf } from './broker/integrator-client.ts';
import type { LoginGuard } from './broker/gate/login-guard.ts';
import type { BrokerMetrics } from './broker/metrics.ts';
import type { OutgoingMessage } from './broker/message.ts';
import type { DevicePresence } from './broker/presence/presence-state.ts';
import { Presence, type PresenceChange } from './broker/presence/presence.ts';
import type { Config } from './config.ts';
import type { ConnectionHistory } from './connection-history.ts';
import type { Database } from './drizzle/database.ts';
import type { Ingest } from './ingest/ingest.ts';
import type { Lane } from './ingest/lane.ts';
import { outboxLimits, storeLimits, toBrokerVerdict } from './joints.ts';
import { reasonOf } from './errors.ts';
import { SlotReaders, type DownlinkPort } from './fleet-downlink.ts';
import { integratorParts } from './fleet-integrators.ts';
import { canonicalTopic } from './firmware-protocol/topics.ts';
import type { Logger } from './log.ts';
import { createPresenceStore } from './registry/presence-store.ts';
import type { Registry } from './registry/registry.ts';

/** What the broker is joined with. */
export interface FleetDeps {
  readonly config: Config;
  readonly database: Database;
  readonly registry: Registry;
  readonly ingest: Ingest;
  readonly guard: LoginGuard;
  readonly history: ConnectionHistory;
  readonly metrics: BrokerMetrics;
  readonly metricsRegistry: MetricsRegistry;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly log: Logger;
  /** Topics of alerts of which something is retained. */
  readonly alertTopics?: (() => Iterable<string>) | undefined;
  /** Who takes what devices and integrators say of commands, configuration, keys and firmware. */
  readonly downlink: DownlinkPort;
  /** Told of each change of a device's presence, at once. */
  readonly onPresence?: ((change: PresenceChange) => void) | undefined;
  readonly onStop: (name: string, close: () => Promise<void>) => void;
}

/** The broker, and what others ask of what stands behind it. */
export interface Fleet {
  readonly broker: Broker;
  /** What is known of a device now; null: what is stored is all there is to know. */
  presenceOf(deviceId: number): DevicePresence | null;
  /** Whether the device has a connection now that reads its commands. */
  isReading(deviceId: number): boolean;
  /** Payload of the message that is retained under a topic; null: there is none. */
  retained(topic: string): Buffer | null;
  /** Topics of the retained messages that a filter matches. */
  retainedTopics(filter: string): Iterable<string>;
}

/** How often sessions of keys that have ended are looked for. */
const ENDED_KEYS_MS = 600_000;
/**
 * Opens the broker of a fleet: sessions on disk, fan-out, presence, and the policy that joins devices
 * with ingest and the registry. In the order in which they need each other; they end in reverse.
 */
export async function openFleet(deps: FleetDeps): Promise<Fleet> {
  const { config, database, history, metrics, metricsRegistry, log, onStop } = deps;
  const store = await openDiskStore({
    folder: join(config.DATA_DIR, 'sessions'),
    limits: storeLimits(config),
    metricsRegistry,
    log,
  });
  onStop('session store', () => store.close());
  const fanOut = openFanOut(deps, store, metrics);
  fanOut.start();
  store.onSessionExpired((clientId) => fanOut.sessionExpired(clientId));
  onStop('fan-out', async () => fanOut.stop());
  const presence = openPresence(deps, store, fanOut, createPresenceStore({ pool: database.pool }));
  await presence.start();
  onStop('presence', () => presence.stop());
  const readers = new SlotReaders();
  const broker = new Broker({
    policy: createPolicy(deps, { store, fanOut, presence, history, metrics, readers }),
    fanOut,
    store,
    incoming: createDiskPersistence(store),
    limits: {
      packetBytesMax: config.PACKET_BYTES_MAX,
      connectDeadlineMs: config.CONNECT_DEADLINE_S * 1000,
    },
    nextConnectionNumber: () => presence.nextConnectionNumber(),
    metrics,
    log,
  });
  await broker.start();
  forgetRevoked(deps, { store, fanOut, presence });
  onStop('broker', () => stopBroker(broker, deps.ingest, config.SHUTDOWN_TIMEOUT_S * 1000));
  return {
    broker,
    presenceOf: (deviceId) => presence.current(deviceId),
    isReading: (deviceId) => readers.isReading(deviceId),
    retained: (topic) => store.retained(topic)?.payload ?? null,
    retainedTopics: (filter) => topicsOf(store.retainedMatching(filter)),
  };
}

/** Ends what outlives a connection when its key or its device goes: sessions and retained status. */
function forgetRevoked(
  { registry, log, onStop }: FleetDeps,
  { store, fanOut, presence }: Pick<Parts, 'store' | 'fanOut' | 'presence'>,
): void {
  registry.revocations.onRevoked(({ keyId, deviceId, deleted }) => {
    // Behind the closing of its connections, which was asked for by the same revocation.
    setImmediate(() => {
      if (keyId !== undefined) void fanOut.dropSessions(isSessionOf(keyId));
      if (deviceId !== undefined && deleted !== undefined)
        presence.forget({ deviceId, ...deleted });
    });
  });
  const dropEnded = async (): Promise<void> => {
    const keyIds = [...new Set([...store.sessionIds()].flatMap((id) => keyIdOf(id) ?? []))];
    const active = await registry.apiKeys.activeKeyIds(keyIds);
    const ended = new Set(keyIds.filter((keyId) => !active.has(keyId)));
    await fanOut.dropSessions((id) => ended.has(keyIdOf(id) ?? ''));
  };
  // Keys expire without a word, and some were revoked while the program was down.
  const look = (): void => {
    dropEnded().catch((err: unknown) => log.warn({ err: reasonOf(err) }, 'sessions not looked at'));
  };
  look();
  const timer = setInterval(look, ENDED_KEYS_MS);
  onStop('ended keys', async () => clearInterval(timer));
}

/** What was taken in is stored and acknowledged before connections end; then their wills are. */
async function stopBroker(broker: Broker, ingest: Ingest, timeoutMs: number): Promise<void> {
  broker.pause();
  await ingest.drain(timeoutMs / 2);
  await broker.stop();
  await ingest.drain(timeoutMs / 2);
}

interface Parts {
  readonly store: DiskStore;
  readonly fanOut: FanOut;
  readonly presence: Presence;
  readonly history: ConnectionHistory;
  readonly metrics: BrokerMetrics;
  readonly readers: SlotReaders;
}

function createPolicy(deps: FleetDeps, parts: Parts): FleetPolicy {
  const { config, registry, guard } = deps;
  const { history } = parts;
  return new FleetPolicy({
    verifyKey: async (key) => toBrokerVerdict(await registry.verifyKey(key)),
    verifyCertificate: async (identity, fingerprint) =>
      toBrokerVerdict(await registry.verifyCertificate(identity, fingerprint)),
    gate: guard,
    connectRate: new ConnectRate(
      { perMinute: config.DEVICE_CONNECTS_PER_MIN, rememberedMax: config.CONNECTIONS_MAX },
      () => performance.now(),
    ),
    mayKeepSession(keyId, clientId) {
      if (parts.store.hasSession(clientId)) return true;
      const ofKey = [...parts.store.sessionIds()].filter(isSessionOf(keyId));
      return ofKey.length < config.KEY_SESSIONS_MAX;
    },
    device: deviceParts(deps, parts),
    integrator: integratorParts({
      ...parts,
      alertTopics: deps.alertTopics ?? (() => []),
      command: (...command) => deps.downlink.command(...command),
    }),
    claim: {
      claim: (request) => deps.downlink.claim(request),
      refused: (...refused) => history.refusedMessage(...refused),
      opened: (session) => history.opened(session),
      closed: (session, code) => history.closed(session, code),
    },
    refused: (refused) => history.refusedConnect(refused),
    violated: (...violation) => history.violated(...violation),
    takenOver: (old, next) => history.takenOver(old, next),
  });
}

function deviceParts({ ingest, config, downlink, now }: FleetDeps, parts: Parts): DeviceParts {
  const { store, fanOut, presence, history, metrics, readers } = parts;
  const greetings = new Greetings(async (device: DeviceClient) => {
    await readers.settled(device);
    return downlink.waiting(device.principal);
  }, now);
  return {
    ingest: {
      openLane: ({ organizationId, deviceId }, address) =>
        ingest.openLane(organizationId, deviceId, address),
      closeLane: (lane) => ingest.closeLane(lane as Lane),
      accept: (lane, publication) => ingest.accept(lane as Lane, publication),
      setBoot: (lane, boot) => ingest.setBoot(lane as Lane, boot),
      greetClock: (lane, upMs) => ingest.greetClock(lane as Lane, upMs),
      storedSequence: (lane) => ingest.storedSequence(lane as Lane),
      isQuarantined: (lane) => (lane as Lane).device.isQuarantined,
    },
    fanOut,
    retained: (topic) => store.retained(topic),
    now,
    opened(device, session) {
      presence.connected({
        ...device.principal,
        address: session.peer.address,
        connectionNumber: session.connectionNumber,
      });
      history.opened(session);
    },
    answers: downlink,
    greeted(device, session, hello, onStored) {
      if (!device.isQuarantined) readers.greeted(device, downlink.greeted(device.principal, hello));
      greetings.heard(device, hello);
      if (device.isQuarantined) {
        onStored();
        return true;
      }
      const { deviceId, organizationId } = device.principal;
      if (hello.u !== undefined) ingest.noteUnits(organizationId, Object.entries(hello.u));
      const isOver = (): boolean => session.framer.destroyed;
      const afterMs = config.SPOOL_AFTER_MS;
      const held = holdHello({ onStored, ingest, afterMs, isOver });
      const isTaken = presence.hello(deviceId, session.connectionNumber, hello, held.acknowledge);
      if (!isTaken) held.forget();
      return isTaken;
    },
    greet: (device) => greetings.subscribed(device),
    subscribedInbox(device) {
      readers.subscribed(device);
      const slot = canonicalTopic(device.principal, 'in/cmd');
      void greetings.subscribed(device).then(() => {
        // What is retained is written behind the greeting.
        if (!device.readsCommands || device.session?.framer.destroyed !== false) return;
        if (store.retained(slot) !== null) downlink.reading(device.principal, device.usesAlias);
      });
    },
    refused(session, code, detail) {
      metrics.errorTold(code);
      history.refusedMessage(session, code, detail);
    },
    closed(device, session, code) {
      readers.closed(device);
      presence.disconnected(device.principal.deviceId, session.connectionNumber);
      history.closed(session, code);
    },
  };
}

/**
 * While the database is away a hello is acknowledged from memory: its PUBACK would hold up those of the
 * readings behind it. It is written later; and if the program dies before, the device says it again when
 * it connects again.
 */
function holdHello({ onStored, ingest, afterMs, isOver }: HeldHello): {
  readonly acknowledge: () => void;
  readonly forget: () => void;
} {
  let isAcknowledged = false;
  const acknowledge = (): void => {
    clearInterval(timer);
    if (!isAcknowledged) onStored();
    isAcknowledged = true;
  };
  const timer = setInterval(() => {
    if (isOver()) clearInterval(timer);
    else if (ingest.isSpooling) acknowledge();
  }, afterMs);
  return { acknowledge, forget: () => clearInterval(timer) };
}

/** A hello that waits to be written. */
interface HeldHello {
  readonly onStored: () => void;
  readonly ingest: Ingest;
  readonly afterMs: number;
  /** Whether its connection has ended. */
  readonly isOver: () => boolean;
}

function openFanOut(
  { config, metricsRegistry, log }: FleetDeps,
  store: DiskStore,
  brokerMetrics: BrokerMetrics,
): FanOut {
  const limits = outboxLimits(config);
  const metrics = new FanOutMetrics();
  const fanOut = new FanOut({
    store,
    limits,
    metrics,
    isTelemetry: (topic) => topic.endsWith('/data') || topic.endsWith('/log'),
    onDenied: () => brokerMetrics.subscribeDenied(),
    log,
  });
  metrics.register(metricsRegistry, limits.queuesBytesMax, () => fanOut.gauges);
  return fanOut;
}

function openPresence(
  { metricsRegistry, onPresence, log }: FleetDeps,
  store: DiskStore,
  fanOut: FanOut,
  presenceStore: ReturnType<typeof createPresenceStore>,
): Presence {
  return new Presence({
    store: presenceStore,
    publishStatus: async (topic, payload) => {
      await fanOut.publishRetained({ topic, payload, qos: 1, retain: false });
    },
    readStatus: (topic) => store.retained(topic)?.payload ?? null,
    retainedStatusTopics: () => topicsOf(store.retainedMatching('v1/+/+/status')),
    onChanged: onPresence,
    now: () => Date.now(),
    log,
    registry: metricsRegistry,
  });
}

function* topicsOf(messages: Iterable<OutgoingMessage>): Generator<string> {
  for (const { topic } of messages) yield topic;
}

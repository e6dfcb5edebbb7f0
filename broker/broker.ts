import type { Duplex } from 'node:stream';
import type { IncomingMessage } from 'node:http';
import type { Registry } from 'prom-client';
import type { Subscription } from 'aedes';
import { reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import { aliasOf } from '../firmware-protocol/topics.ts';
import { connackError, identify, rewriteConnect, rewriteWill } from './authenticate.ts';
import { authorizeFilter, authorizeTopic, type Intake } from './authorize.ts';
import { ConnectionCounts, type ConnectionLimits } from './connection-limits.ts';
import { DeviceErrors } from './device-errors.ts';
import { Engine, ignoreOutcome, type EngineClient, type EngineHooks } from './engine.ts';
import { createBrokerMetrics, type BrokerMetrics, type CloseReason } from './metrics.ts';
import type { ConnectRefusal, DevicePrincipal, KeyVerdict, VerifyKey } from './principal.ts';
import { createSession, type Session } from './session.ts';

/** What the broker asks of the rest of the program; `app.ts` joins them. */
export interface BrokerParts {
  readonly verifyKey: VerifyKey;
  readonly ingest: IngestPort;
  readonly limits: BrokerLimits;
  readonly registry: Registry;
  readonly log: Logger;
}

/** Bounds of the broker. */
export interface BrokerLimits extends ConnectionLimits {
  readonly packetBytesMax: number;
  /** From the first byte to CONNACK. */
  readonly connectDeadlineMs: number;
}

/** Where publications of devices go. A lane is what ingest keeps for a device; opaque here. */
export interface IngestPort {
  openLane(principal: DevicePrincipal): unknown;
  closeLane(lane: unknown): void;
  /** Takes a publication; `acknowledge` is called after COMMIT, or never. */
  accept(lane: unknown, publication: BrokerPublication): void;
}

/** A publication of a device with what may be done to its connection. */
export interface BrokerPublication extends Intake {
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: 0 | 1 | 2;
  readonly acknowledge: () => void;
  readonly source: SessionSource;
}

/** The connection as ingest sees it. */
export interface SessionSource {
  report: (code: Parameters<DeviceErrors['report']>[1], channel: string, detail: string) => void;
  close: (reason: CloseReason) => void;
}

/** How often held acknowledgements are looked through, in ms. */
const HOLD_SWEEP_MS = 250;

/** Reasons that the device is told on `in/err`, and the time that this message has to leave, in ms. */
const TOLD_REASONS: ReadonlySet<CloseReason> = new Set(['rate', 'held_bytes', 'errors']);
const TELL_MS = 20;

type Hook<Name extends keyof EngineHooks> = Parameters<EngineHooks[Name]>;

/**
 * The MQTT broker: who connects, what they may say, and when they are answered. Publications of devices
 * go to ingest and are acknowledged when ingest says so, that is, after COMMIT.
 */
export class Broker {
  readonly #parts: BrokerParts;
  readonly #engine: Engine;
  readonly #metrics: BrokerMetrics;
  readonly #errors: DeviceErrors;
  readonly #counts: ConnectionCounts;
  readonly #sessions = new Set<Session>();
  readonly #sources = new WeakMap<Session, SessionSource>();
  readonly #verdicts = new WeakMap<EngineClient, KeyVerdict>();
  readonly #deadlines = new WeakMap<Duplex, NodeJS.Timeout>();
  #sweep: NodeJS.Timeout | undefined;

  constructor(parts: BrokerParts) {
    this.#parts = parts;
    const { packetBytesMax, connectDeadlineMs } = parts.limits;
    this.#counts = new ConnectionCounts(parts.limits);
    this.#metrics = createBrokerMetrics(parts.registry, () => ({
      connections: this.#counts.total,
      sessions: this.#sessions.size,
      held: this.heldMessages,
    }));
    this.#errors = new DeviceErrors(this.#metrics, (session, reason) =>
      this.#closeSession(session, reason),
    );
    this.#engine = new Engine(this.#hooks(), packetBytesMax, connectDeadlineMs);
  }

  /** Messages taken in and not acknowledged yet. */
  get heldMessages(): number {
    let held = 0;
    for (const session of this.#sessions) held += session.heldCount;
    return held;
  }

  /** Makes the engine ready for {@link accept}. */
  async start(): Promise<void> {
    this.#listenToEngine();
    await this.#engine.listen();
    this.#sweep = setInterval(() => this.#closeOverdue(), HOLD_SWEEP_MS);
  }

  /** Takes a connection of any transport, or closes it when there are too many. */
  accept(connection: Duplex, address: string, request?: IncomingMessage): void {
    const bound = this.#counts.add(address);
    if (bound !== null) {
      this.#metrics.closed(bound);
      connection.destroy();
      return;
    }
    const deadline = setTimeout(() => {
      this.#metrics.closed('connect_deadline');
      connection.destroy();
    }, this.#parts.limits.connectDeadlineMs);
    this.#deadlines.set(connection, deadline);
    connection.once('close', () => {
      clearTimeout(deadline);
      this.#counts.remove(address);
    });
    this.#engine.accept(connection, request);
  }

  /** Closes the connections of these principals at once, without their wills. */
  closeWhere(matches: (principal: DevicePrincipal) => boolean): void {
    for (const session of this.#sessions) {
      if (matches(session.principal)) {
        session.client.will = null;
        this.#closeSession(session, 'revoked');
      }
    }
  }

  /** Key ids of the live sessions. */
  liveKeyIds(): string[] {
    return [...this.#sessions].map((session) => session.principal.keyId);
  }

  /** Reads no more from devices, so that what was taken in can be stored and acknowledged. */
  pause(): void {
    for (const session of this.#sessions) session.client.pause();
  }

  /** Closes all connections. Wills of devices that did not say goodbye go to ingest. */
  stop(): Promise<void> {
    clearInterval(this.#sweep);
    return new Promise((resolve) => this.#engine.close(() => resolve()));
  }

  #hooks(): EngineHooks {
    return {
      preConnect: (...call) => void this.#preConnect(...call),
      authenticate: (client, _username, _password, done) => this.#authenticate(client, done),
      authorizePublish: (...call) => this.#authorizePublish(...call),
      authorizeSubscribe: (...call) => this.#authorizeSubscribe(...call),
      authorizeForward: (client, packet) => {
        const { session } = client as EngineClient;
        if (session === undefined || !session.usesAlias) return packet;
        return { ...packet, topic: aliasOf(packet.topic, session.principal) };
      },
    };
  }

  /** Identity is settled here, before the engine looks at the client identifier. Rejects never. */
  async #preConnect(...[rawClient, packet, done]: Hook<'preConnect'>): Promise<void> {
    const client = rawClient as EngineClient;
    const verdict = await identify(packet, this.#parts.verifyKey);
    if (client.closed) return;
    if (verdict.ok) this.#admit(client, packet, verdict.principal);
    else this.#refuse(client, verdict.refusal);
    if (client.session === undefined) {
      packet.clientId = 'refused';
      packet.clean = true;
      delete packet.will;
    }
    done(null, true);
  }

  #admit(client: EngineClient, packet: Hook<'preConnect'>[1], principal: DevicePrincipal): void {
    if (!rewriteWill(packet, principal)) {
      this.#refuse(client, 'will_refused');
      return;
    }
    const keepAliveS = rewriteConnect(packet, principal);
    const lane = this.#parts.ingest.openLane(principal);
    const session = createSession(client, principal, keepAliveS, lane);
    client.session = session;
    this.#sources.set(session, {
      report: (code, channel, detail) => this.#errors.report(session, code, channel, detail),
      close: (reason) => this.#closeSession(session, reason),
    });
    this.#sessions.add(session);
    client.conn.once('close', () => {
      this.#sessions.delete(session);
      this.#parts.ingest.closeLane(lane);
    });
  }

  #refuse(client: EngineClient, refusal: ConnectRefusal): void {
    this.#verdicts.set(client, { ok: false, refusal });
  }

  #authenticate(rawClient: Hook<'authenticate'>[0], done: Hook<'authenticate'>[3]): void {
    const client = rawClient as EngineClient;
    const verdict = this.#verdicts.get(client);
    if (client.session !== undefined) {
      done(null, true);
      return;
    }
    const refusal = verdict?.ok === false ? verdict.refusal : 'key_malformed';
    this.#metrics.refused(refusal);
    this.#parts.log.debug({ refusal }, 'connect refused');
    done(connackError(refusal), false);
  }

  #authorizePublish(...[client, packet, done]: Hook<'authorizePublish'>): void {
    const session = (client as EngineClient | null)?.session;
    // Without a client it is a will of a dead broker; an error would make the engine retry for ever.
    if (session === undefined) {
      done(null);
      return;
    }
    packet.retain = false;
    const intake = authorizeTopic(session, packet.topic);
    const source = this.#sources.get(session);
    if (intake === null || source === undefined) {
      this.#closeSession(session, 'protocol_violation');
      return;
    }
    // [MQTT-4.3.3-2] Stored before; the engine answers it with PUBREC again.
    if (packet.qos === 2 && session.client._inboundInflight.has(packet.messageId ?? 0)) {
      done(null);
      return;
    }
    // A will comes from a client that is closed already.
    const isWill = session.client.closed;
    if (session.heldCount === 0) session.heldSince = performance.now();
    session.heldCount += 1;
    this.#parts.ingest.accept(session.lane, {
      channel: intake.channel,
      metric: intake.metric,
      refusal: intake.refusal,
      topic: packet.topic,
      payload: packet.payload as Buffer,
      qos: packet.qos,
      source,
      acknowledge: () => {
        session.heldCount -= 1;
        session.heldSince = performance.now();
        if (isWill || !session.client.closed) done(null);
      },
    });
  }

  #authorizeSubscribe(...[rawClient, subscription, done]: Hook<'authorizeSubscribe'>): void {
    const client = rawClient as EngineClient;
    const topics = client.session && authorizeFilter(client.session, subscription.topic);
    const [first, ...others] = topics ?? [];
    if (first === undefined) {
      this.#metrics.subscribeDenied();
      done(null, null);
      return;
    }
    subscription.topic = first;
    if (others.length > 0) {
      const rest = others.map((topic) => ({ ...subscription, topic }));
      client.subscribe(rest, ignoreOutcome);
    }
    done(null, subscription);
  }

  #listenToEngine(): void {
    this.#engine.on('connackSent', (packet, client) => {
      if (packet.returnCode !== 0) return;
      clearTimeout(this.#deadlines.get(client.conn));
      this.#metrics.connected();
    });
    this.#engine.on('keepaliveTimeout', () => this.#metrics.closed('keep_alive'));
    this.#engine.on('unsubscribe', (filters, client) => this.#dropExpanded(filters, client));
    this.#engine.on('clientError', (_client, err) =>
      this.#parts.log.debug({ err: reasonOf(err) }, 'client error'),
    );
    this.#engine.on('connectionError', (_client, err) =>
      this.#parts.log.debug({ err: reasonOf(err) }, 'connection error'),
    );
    (this.#engine as NodeJS.EventEmitter).on('error', (err: unknown) =>
      this.#parts.log.error({ err: reasonOf(err) }, 'engine error'),
    );
  }

  /** The engine knows only the filter that the device named; what it was expanded to goes with it. */
  #dropExpanded(filters: string[], rawClient: Hook<'authorizeSubscribe'>[0]): void {
    const client = rawClient as EngineClient;
    if (client.closed) return;
    for (const filter of filters) {
      const topics = client.session?.expandedFilters.get(filter);
      if (topics === undefined) continue;
      client.session?.expandedFilters.delete(filter);
      client.unsubscribe(topics as unknown as Subscription[], ignoreOutcome);
    }
  }

  #closeOverdue(): void {
    const now = performance.now();
    for (const session of this.#sessions) {
      if (session.heldCount > 0 && now - session.heldSince > session.heldMsMax) {
        this.#closeSession(session, 'hold_timeout');
      }
    }
  }

  #closeSession(session: Session, reason: CloseReason): void {
    if (session.isClosing || session.client.closed) return;
    session.isClosing = true;
    this.#metrics.closed(reason);
    const { client } = session;
    if (!TOLD_REASONS.has(reason)) {
      client.conn.destroy();
      return;
    }
    client.pause();
    setTimeout(() => client.conn.destroy(), TELL_MS);
  }
}

import type { Duplex } from 'node:stream';
import type { IncomingMessage } from 'node:http';
import type { Registry } from 'prom-client';
import { reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import { authorizeTopic, type Intake } from './authorize.ts';
import { ConnectionCounts, type ConnectionLimits } from './connection-limits.ts';
import { DeviceErrors } from './device-errors.ts';
import { Engine, type EngineClient, type EngineHooks } from './engine.ts';
import { Framer, type PublishSink } from './framer.ts';
import { Greetings } from './greeting.ts';
import { createHandshake } from './handshake.ts';
import { createBrokerMetrics, type BrokerMetrics, type CloseReason } from './metrics.ts';
import type { DevicePrincipal, VerifyKey } from './principal.ts';
import {
  createSession,
  holdOne,
  isHeldTooLong,
  isSilentTooLong,
  releaseOne,
  type Session,
  type SessionSource,
} from './session.ts';
import { createSubscriptionHooks, dropExpanded } from './subscriptions.ts';

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
  /** Takes a publication. @returns false when it waits before the queue. */
  accept(lane: unknown, publication: BrokerPublication): boolean;
}

/** A publication of a device with what may be done to its connection. */
export interface BrokerPublication extends Intake {
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: 0 | 1 | 2;
  /** Called after COMMIT, or never. */
  readonly acknowledge: () => void;
  readonly source: SessionSource;
}

/** How often held acknowledgements and silent devices are looked through, in ms. */
const SWEEP_MS = 250;
/** Reasons that the device is told on `in/err`, and the time that this message has to leave, in ms. */
const TOLD_REASONS: ReadonlySet<CloseReason> = new Set(['rate', 'held_bytes', 'errors']);
const TELL_MS = 20;

/**
 * The MQTT broker: who connects, what they may say, and when they are answered. Publications of devices
 * go to ingest and are acknowledged when ingest says so, that is, after COMMIT.
 */
export class Broker {
  readonly #parts: BrokerParts;
  readonly #engine: Engine;
  readonly #metrics: BrokerMetrics;
  readonly #errors: DeviceErrors;
  readonly #greetings = new Greetings();
  readonly #counts: ConnectionCounts;
  readonly #sessions = new Set<Session>();
  /** Every open connection, and the deadline of those without CONNACK. */
  readonly #connections = new Map<Duplex, NodeJS.Timeout>();
  #sweep: NodeJS.Timeout | undefined;

  constructor(parts: BrokerParts) {
    this.#parts = parts;
    this.#counts = new ConnectionCounts(parts.limits);
    this.#metrics = createBrokerMetrics(parts.registry, () => ({
      connections: this.#counts.total,
      sessions: this.#sessions.size,
      held: this.heldMessages,
    }));
    this.#errors = new DeviceErrors(this.#metrics, (session, reason) =>
      this.#closeSession(session, reason),
    );
    this.#engine = new Engine(this.#hooks(), parts.limits.connectDeadlineMs);
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
    this.#sweep = setInterval(() => this.#closeOverdue(), SWEEP_MS);
  }

  /** Takes a connection of any transport, or closes it when there are too many. */
  accept(connection: Duplex, address: string, request?: IncomingMessage): void {
    const bound = this.#counts.add(address);
    if (bound !== null) {
      this.#metrics.closed(bound);
      connection.destroy();
      return;
    }
    const framer = new Framer(connection, this.#parts.limits.packetBytesMax, {
      onViolation: (reason) => {
        this.#metrics.closed('protocol_violation');
        this.#parts.log.debug({ reason }, 'protocol violation');
      },
    });
    const deadline = setTimeout(() => {
      this.#metrics.closed('connect_deadline');
      framer.destroy();
    }, this.#parts.limits.connectDeadlineMs);
    this.#connections.set(framer, deadline);
    connection.once('close', () => {
      clearTimeout(deadline);
      this.#connections.delete(framer);
      this.#counts.remove(address);
    });
    this.#engine.accept(framer, request);
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
    for (const session of this.#sessions) session.framer.halt();
  }

  /** Closes all connections. Wills of devices that did not say goodbye go to ingest. */
  async stop(): Promise<void> {
    clearInterval(this.#sweep);
    await new Promise<void>((resolve) => this.#engine.close(() => resolve()));
    for (const framer of this.#connections.keys()) framer.destroy();
  }

  #hooks(): EngineHooks {
    const { verifyKey, log } = this.#parts;
    return {
      ...createHandshake({
        verifyKey,
        openSession: (...session) => this.#openSession(...session),
        metrics: this.#metrics,
        log,
      }),
      ...createSubscriptionHooks(this.#metrics),
      authorizePublish: (...call) => this.#takeFromEngine(...call),
    };
  }

  #openSession(client: EngineClient, principal: DevicePrincipal, keepAliveS: number): void {
    const framer = client.conn as Framer;
    const lane = this.#parts.ingest.openLane(principal);
    const session = createSession({ client, framer, principal, keepAliveS, lane }, (made) => ({
      report: (code, channel, detail) => this.#errors.report(made, code, channel, detail),
      resume: () => framer.goOn(),
      close: (reason) => this.#closeSession(made, reason),
    }));
    client.session = session;
    this.#sessions.add(session);
    framer.once('close', () => {
      this.#sessions.delete(session);
      this.#parts.ingest.closeLane(lane);
    });
  }

  /** Telemetry on its short way: from the framer straight to ingest. */
  #sinkOf(session: Session): PublishSink {
    const { ingest } = this.#parts;
    const { lane, source } = session;
    return {
      authorize: (topic) => authorizeTopic(session, topic),
      take(intake, { topic, payload, qos, acknowledge }) {
        holdOne(session);
        return ingest.accept(lane, {
          channel: intake.channel,
          metric: intake.metric,
          refusal: intake.refusal,
          topic,
          payload,
          qos,
          source,
          acknowledge: () => {
            releaseOne(session);
            acknowledge();
          },
        });
      },
    };
  }

  /** QoS 2, and wills: what the engine has to keep the books of. */
  #takeFromEngine(...[client, packet, done]: Parameters<EngineHooks['authorizePublish']>): void {
    const session = (client as EngineClient | null)?.session;
    // Without a client it is a will of a dead broker; an error would make the engine retry for ever.
    if (session === undefined) {
      done(null);
      return;
    }
    packet.retain = false;
    // [MQTT-4.3.3-2] Stored before; the engine answers it with PUBREC again.
    const isKnown = packet.qos === 2 && session.client._inboundInflight.has(packet.messageId ?? 0);
    const intake = isKnown ? null : authorizeTopic(session, packet.topic);
    if (intake === null) {
      if (isKnown) done(null);
      else this.#closeSession(session, 'protocol_violation');
      return;
    }
    const isWill = session.client.closed;
    holdOne(session);
    this.#parts.ingest.accept(session.lane, {
      ...intake,
      topic: packet.topic,
      payload: packet.payload as Buffer,
      qos: packet.qos,
      source: session.source,
      acknowledge: () => {
        releaseOne(session);
        if (isWill || !session.client.closed) done(null);
      },
    });
  }

  #listenToEngine(): void {
    const { log } = this.#parts;
    this.#engine.on('connackSent', (packet, rawClient) => {
      const { session, conn } = rawClient as EngineClient;
      if (packet.returnCode !== 0 || session === undefined) return;
      clearTimeout(this.#connections.get(conn));
      this.#metrics.connected();
      session.framer.admit(this.#sinkOf(session));
    });
    this.#engine.on('subscribe', (subscriptions, rawClient) => {
      const { session } = rawClient as EngineClient;
      if (session === undefined) return;
      this.#greetings.subscribed(
        session,
        subscriptions.filter(({ qos }) => (qos as number) < 128).map(({ topic }) => topic),
      );
    });
    this.#engine.on('unsubscribe', (filters, client) =>
      dropExpanded(client as EngineClient, filters),
    );
    this.#engine.on('clientError', (_client, err) =>
      log.debug({ err: reasonOf(err) }, 'client error'),
    );
    this.#engine.on('connectionError', (_client, err) =>
      log.debug({ err: reasonOf(err) }, 'connection error'),
    );
    (this.#engine as NodeJS.EventEmitter).on('error', (err: unknown) =>
      log.error({ err: reasonOf(err) }, 'engine error'),
    );
  }

  #closeOverdue(): void {
    const nowMs = performance.now();
    for (const session of this.#sessions) {
      if (isHeldTooLong(session, nowMs)) this.#closeSession(session, 'hold_timeout');
      else if (isSilentTooLong(session, nowMs)) this.#closeSession(session, 'keep_alive');
    }
  }

  #closeSession(session: Session, reason: CloseReason): void {
    if (session.isClosing || session.framer.destroyed) return;
    session.isClosing = true;
    this.#metrics.closed(reason);
    const { framer } = session;
    if (!TOLD_REASONS.has(reason)) {
      framer.destroy();
      return;
    }
    framer.halt();
    setTimeout(() => framer.destroy(), TELL_MS);
  }
}

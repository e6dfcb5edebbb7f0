import type { Duplex } from 'node:stream';
import { reasonOf } from '../errors.ts';
import { isCertificateId } from '../firmware-protocol/keys.ts';
import type { Logger } from '../log.ts';
import { Engine, type EngineClient, type EngineHooks } from './engine.ts';
import { EnginePersistence, type IncomingPersistence } from './engine-persistence.ts';
import type { FanOut } from './outgoing/fan-out.ts';
import { Framer } from './framer.ts';
import { createHandshake } from './handshake.ts';
import type { BrokerMetrics, CloseReason } from './metrics.ts';
import type { Peer } from './peer.ts';
import type { Admission, Policy } from './policy.ts';
import { Pacer } from './pacer.ts';
import { sinkOf } from './packet-sink.ts';
import type { Principal } from './principal.ts';
import {
  createSession,
  holdOne,
  isHeldTooLong,
  isSilentTooLong,
  releaseOne,
  type Session,
} from './session.ts';
import type { SessionStore } from './store/session-store.ts';

/** What the broker is made of; `app.ts` joins it. */
export interface BrokerParts {
  /** Who is let in and what they may do. */
  readonly policy: Policy;
  readonly fanOut: FanOut;
  readonly store: SessionStore;
  readonly incoming: IncomingPersistence;
  readonly limits: BrokerLimits;
  /** Numbers for connections, rising across restarts. */
  readonly nextConnectionNumber: () => number;
  readonly metrics: BrokerMetrics;
  readonly log: Logger;
}

/** Bounds of the broker. */
export interface BrokerLimits {
  readonly packetBytesMax: number;
  /** From the first byte of CONNECT to CONNACK; the door has the same bound from accept() on. */
  readonly connectDeadlineMs: number;
}

/** How often held acknowledgements and silent clients are looked through, in ms. */
const SWEEP_MS = 250;
/** Reasons that the client is told before it is cut off, and the time that this has to leave, in ms. */
const TOLD_REASONS: ReadonlySet<CloseReason> = new Set(['rate', 'quota', 'held_bytes', 'errors']);
const TELL_MS = 20;

/**
 * The MQTT broker: connections and sessions, from the first byte to the last. What a client may do and
 * what its messages lead to is its access, which the policy gives it.
 */
export class Broker {
  readonly #parts: BrokerParts;
  readonly #engine: Engine;
  readonly #persistence: EnginePersistence;
  readonly #sessions = new Set<Session>();
  /** Let in, and CONNACK not written yet: a revocation concerns them too. */
  readonly #admitted = new Set<Session>();
  /** Every open connection. */
  readonly #connections = new Map<Duplex, Peer>();
  readonly #pacer = new Pacer();
  #sweep: NodeJS.Timeout | undefined;

  constructor(parts: BrokerParts) {
    this.#parts = parts;
    const { store, incoming, policy } = parts;
    this.#persistence = new EnginePersistence(store, incoming, policy.keepsWills);
    this.#engine = new Engine(this.#hooks(), this.#persistence, parts.limits.connectDeadlineMs);
    parts.metrics.observe(() => ({
      connections: this.#connections.size,
      sessions: this.#sessions.size,
      held: this.heldMessages,
    }));
  }

  /** Who subscribes to what: for messages of devices that come another way than over MQTT. */
  get fanOut(): FanOut {
    return this.#parts.fanOut;
  }

  /** Messages taken in and not acknowledged yet. */
  get heldMessages(): number {
    let held = 0;
    for (const session of this.#sessions) held += session.heldCount;
    return held;
  }

  /** Makes the broker ready for {@link accept}. */
  async start(): Promise<void> {
    this.#listenToEngine();
    await this.#engine.listen();
    this.#sweep = setInterval(() => this.#closeOverdue(), SWEEP_MS);
  }

  /** Takes a connection of any transport that was let through the door. */
  accept(connection: Duplex, peer: Peer): void {
    const framer = new Framer(connection, this.#parts.limits.packetBytesMax, {
      onViolation: (...violation) => this.#violated(framer, ...violation),
    });
    this.#connections.set(framer, peer);
    framer.once('close', () => this.#connections.delete(framer));
    this.#engine.accept(framer, peer.request);
  }

  /** Closes the connections of these principals at once, without their wills. */
  closeWhere(matches: (principal: Principal) => boolean): void {
    for (const session of [...this.#admitted, ...this.#sessions]) {
      if (session.principal === null || !matches(session.principal)) continue;
      session.client.will = null;
      session.close('revoked');
    }
  }

  /** Whom the live sessions speak for, and those that are about to begin. */
  livePrincipals(): Principal[] {
    return [...this.#admitted, ...this.#sessions].flatMap(({ principal }) => principal ?? []);
  }

  /** Reads no more from clients, so that what was taken in can be stored and acknowledged. */
  pause(): void {
    for (const session of this.#sessions) session.framer.halt();
  }

  /** Closes all connections. Wills of clients that did not say goodbye are taken in. */
  async stop(): Promise<void> {
    clearInterval(this.#sweep);
    for (const session of this.#sessions) session.closeReason ??= 'shutdown';
    await new Promise<void>((resolve) => this.#engine.close(() => resolve()));
    for (const framer of this.#connections.keys()) framer.destroy();
  }

  #hooks(): EngineHooks {
    const { policy, store, metrics, log } = this.#parts;
    return {
      ...createHandshake({
        policy,
        store,
        peerOf: ({ conn }) => this.#peerOf(conn),
        markPresent: (clientId) => this.#persistence.markPresent(clientId),
        openSession: (...session) => this.#openSession(...session),
        metrics,
        log,
      }),
      authorizePublish: (...call) => this.#storeFromEngine(...call),
      release: (packet, client, done) => {
        const { topic, payload, qos, retain } = packet;
        const message = { topic, payload: payload as Buffer, qos, retain };
        // Without a client: a will of a run before, of a client that is gone with it.
        if (client?.session === undefined) policy.releaseOrphan(message, done);
        else client.session.access.release(message, done);
      },
      takenOver: (old, next) => {
        if (old.session === undefined || next.session === undefined) return;
        old.session.closeReason ??= 'taken_over';
        policy.takenOver(old.session, next.session);
      },
    };
  }

  #openSession(
    client: EngineClient,
    { principal, access }: Admission & { ok: true },
    namedClientId: string,
  ): void {
    const framer = client.conn as Framer;
    const session = createSession({
      principal,
      access,
      namedClientId,
      peer: this.#peerOf(framer),
      client,
      framer,
      close: (reason) => this.#closeSession(session, reason),
      send: (topic, message) =>
        session.subscriber?.sendDirect(topic, Buffer.from(JSON.stringify(message))),
    });
    client.session = session;
    this.#admitted.add(session);
    framer.once('close', () => this.#admitted.delete(session));
  }

  /** CONNACK has been written: packets flow. */
  #begin(session: Session): void {
    const { framer, access } = session;
    const { metrics, fanOut } = this.#parts;
    this.#admitted.delete(session);
    if (framer.destroyed) return;
    // A clean session of the same client has just ended this one [MQTT-3.1.2-6].
    if (!access.isClean && !this.#parts.store.hasSession(access.clientId)) {
      session.close('taken_over');
      return;
    }
    // Not before: of two that connect at once the engine says only now which one is the later.
    session.connectionNumber = this.#parts.nextConnectionNumber();
    session.peer.entry?.authenticated();
    this.#sessions.add(session);
    framer.once('close', () => this.#end(session));
    metrics.connected();
    session.subscriber = fanOut.attach({
      clientId: access.clientId,
      isClean: access.isClean,
      link: framer,
      access,
      onOverflow: session.close,
    });
    access.opened(session);
    framer.admit(sinkOf(session, session.subscriber, this.#pacer));
    session.subscriber.start();
  }

  #end(session: Session): void {
    this.#sessions.delete(session);
    session.subscriber?.detach();
    const { client, closeReason } = session;
    const code = closeReason ?? (client._disconnected ? 'client_left' : 'client_gone');
    if (closeReason === null || closeReason === 'taken_over') this.#parts.metrics.closed(code);
    session.access.closed(code);
  }

  /** QoS 2, and wills: what the engine has to keep the books of. */
  #storeFromEngine(...[client, packet, done]: Parameters<EngineHooks['authorizePublish']>): void {
    const session = (client as EngineClient | null)?.session;
    // Without a client it is a will of a run before; an error would make the engine retry for ever. One
    // that ended before its CONNACK was never there.
    if (session === undefined || session.connectionNumber === 0) {
      done(null);
      return;
    }
    // [MQTT-4.3.3-2] Stored before; the engine answers it with PUBREC again.
    const isKnown = packet.qos === 2 && session.client._inboundInflight.has(packet.messageId ?? 0);
    const intake = isKnown ? null : session.access.authorize(packet.topic);
    if (intake === null) {
      if (isKnown) done(null);
      else session.close('protocol_violation');
      return;
    }
    const isWill = session.client.closed;
    holdOne(session);
    session.access.store(intake, {
      topic: packet.topic,
      payload: packet.payload as Buffer,
      qos: packet.qos,
      retain: packet.retain,
      acknowledge: () => {
        releaseOne(session);
        if (isWill || !session.client.closed) done(null);
      },
    });
  }

  #listenToEngine(): void {
    const { log } = this.#parts;
    this.#engine.on('connackSent', (packet, rawClient) => {
      const { session } = rawClient as EngineClient;
      if (packet.returnCode === 0 && session !== undefined) this.#begin(session);
    });
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

  #violated(framer: Framer, reason: string, code: CloseReason): void {
    this.#parts.log.debug({ reason, code }, 'protocol violation');
    this.#parts.metrics.closed(code);
    const session = (framer as Framer & { client?: EngineClient }).client?.session;
    if (session === undefined) {
      this.#parts.policy.violated(this.#peerOf(framer), code, reason);
    } else if (session.closeReason === null) {
      session.closeReason = code;
      session.closeDetail = reason;
    }
  }

  #closeOverdue(): void {
    const nowMs = performance.now();
    const now = Date.now();
    for (const session of this.#sessions) {
      if (isHeldTooLong(session, nowMs)) session.close('hold_timeout');
      else if (isSilentTooLong(session, nowMs)) session.close('keep_alive');
      else if (isExpired(session, now)) session.close('key_expired');
    }
  }

  #closeSession(session: Session, reason: CloseReason): void {
    if (session.closeReason !== null || session.framer.destroyed) return;
    session.closeReason = reason;
    this.#parts.metrics.closed(reason);
    const { framer } = session;
    if (!TOLD_REASONS.has(reason)) {
      framer.destroy();
      return;
    }
    framer.halt();
    setTimeout(() => framer.destroy(), TELL_MS);
  }

  #peerOf(framer: Duplex): Peer {
    const peer = this.#connections.get(framer);
    if (peer === undefined) throw new Error('a connection without a peer');
    return peer;
  }
}

/** Whether the credential has ended that the client was let in with. */
function isExpired({ principal, peer }: Session, now: number): boolean {
  if (principal !== null && 'expiresAt' in principal) {
    if (principal.expiresAt !== null && principal.expiresAt <= now) return true;
  }
  const certificate = peer.clientCertificate;
  if (certificate === null || principal === null) return false;
  return isCertificateId(principal.keyId) && certificate.notAfterMs <= now;
}

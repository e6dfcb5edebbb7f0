// HOT PATH: once per message; see bench/RESULTS.md
import { Dispatch, type DispatchParts } from './dispatch.ts';
import type { FanOutGauges } from './fan-out-metrics.ts';
import { InterestTable } from './interest-table.ts';
import type { OutgoingMessage } from '../message.ts';
import { Recipient } from './recipient.ts';
import type { SessionStore } from '../store/session-store.ts';
import { Subscriber, type SubscriberConnection, type SubscriberParts } from './subscriber.ts';

/** What the fan-out is made of. */
export interface FanOutParts extends DispatchParts {
  /** A filter was answered with 0x80. */
  readonly onDenied: () => void;
}

/** How often connections that take nothing are looked for, in ms. */
const SWEEP_MS = 1000;
/** A payload that is cut from a chunk this much larger than itself, in bytes, is copied out of it. */
const CHUNK_BYTES_MAX = 8192;

/**
 * Sends messages to those who want them: at once to the connections, and through the session store to
 * persistent sessions at QoS 1, connected or not.
 */
export class FanOut {
  readonly #store: SessionStore;
  readonly #table = new InterestTable<Recipient>();
  readonly #dispatch: Dispatch;
  readonly #subscriberParts: SubscriberParts;
  /** Persistent sessions by client identifier. */
  readonly #sessions = new Map<string, Recipient>();
  #sweep: NodeJS.Timeout | undefined;

  constructor(parts: FanOutParts) {
    this.#store = parts.store;
    this.#dispatch = new Dispatch(parts);
    this.#subscriberParts = {
      table: this.#table,
      dispatch: this.#dispatch,
      onDenied: parts.onDenied,
    };
  }

  /** What waits for subscribers, and what they want. */
  get gauges(): FanOutGauges {
    const { waitingMessages, waitingBytes, inFlightMessages } = this.#dispatch;
    return { waitingMessages, waitingBytes, inFlightMessages, filters: this.#table.filterCount };
  }

  /** Rises with each change of what anybody wants: {@link isWanted} holds until then. */
  get generation(): number {
    return this.#table.generation;
  }

  /** Takes up the persistent sessions of the store. */
  start(): void {
    for (const clientId of this.#store.sessionIds()) this.#sessionOf(clientId);
    this.#sweep = setInterval(() => {
      this.#dispatch.checkStuck(performance.now());
    }, SWEEP_MS).unref();
  }

  /** Ends {@link start}. Connections are closed by then. */
  stop(): void {
    clearInterval(this.#sweep);
  }

  /** Whether anybody wants messages of a topic, be it a session whose client is away. */
  isWanted(topic: string): boolean {
    return this.#table.isWanted(topic);
  }

  /**
   * Joins a connection that was let in. Of a client identifier with a persistent session there is one
   * connection: one that is still there is sent nothing more. A clean session ends the persistent one.
   * @returns its reading side; `detach` when it ends.
   */
  attach(connection: SubscriberConnection): Subscriber {
    const { clientId, isClean } = connection;
    if (isClean) {
      this.#forget(clientId);
      return new Subscriber(this.#subscriberParts, new Recipient(clientId, true), connection);
    }
    const session = this.#sessionOf(clientId);
    this.#store.touchSession(clientId, true);
    return new Subscriber(this.#subscriberParts, session, connection);
  }

  /**
   * Sends a message to all who want it; each gets it once, at the lower of its QoS and the highest that
   * was granted [MQTT-3.3.5-1], with the retain flag of the message.
   * @param exceptId client identifier of one who does not get it.
   * @returns null when nothing has to be written down; else a promise that resolves when the message
   * waits on disk for every persistent session, or when that failed, which is logged and counted.
   */
  publish(message: OutgoingMessage, exceptId: string | null = null): Promise<void> | null {
    const interests = this.#table.match(message.topic);
    if (interests.length === 0) return null;
    const own = withOwnPayload(message);
    let stored: Recipient[] | null = null;
    for (const { subscriber, qos } of interests) {
      if (subscriber.clientId === exceptId) continue;
      const effectiveQos = qos < own.qos ? qos : own.qos;
      if (effectiveQos === 0 || subscriber.isClean) subscriber.deliver(own, effectiveQos);
      else if (stored === null) stored = [subscriber];
      else stored.push(subscriber);
    }
    return stored === null ? null : this.#publishStored(own, stored);
  }

  /**
   * Keeps a message as the last of its topic, an empty payload removes it [MQTT-3.3.1-10], and sends it
   * to all who want it, as any other [MQTT-3.3.1-9].
   * @returns a promise that resolves as that of {@link publish}, and when the message is kept on disk.
   */
  async publishRetained(message: OutgoingMessage): Promise<void> {
    const { topic, payload, qos } = message;
    let kept: Promise<void> | null = null;
    try {
      kept = this.#store.putRetained({ topic, payload, qos, retain: true });
    } catch (err) {
      this.#dispatch.storeFailed(err);
    }
    const written = this.publish({ topic, payload, qos, retain: false });
    const [outcome] = await Promise.allSettled([kept, written]);
    if (outcome.status === 'rejected') this.#dispatch.storeFailed(outcome.reason);
  }

  /** The store has ended a persistent session whose client stayed away. */
  sessionExpired(clientId: string): void {
    this.#forget(clientId);
  }

  /** Ends persistent sessions for good, with what waits for them. Their connections are not closed. */
  async dropSessions(isDropped: (clientId: string) => boolean): Promise<void> {
    const dropped = [...this.#store.sessionIds()].filter(isDropped);
    for (const clientId of dropped) this.#forget(clientId);
    const outcomes = await Promise.allSettled(
      dropped.map((clientId) => this.#store.dropSession(clientId)),
    );
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') this.#dispatch.storeFailed(outcome.reason);
    }
  }

  #publishStored(message: OutgoingMessage, recipients: readonly Recipient[]): Promise<void> {
    const clientIds: string[] = [];
    for (const { clientId } of recipients) clientIds.push(clientId);
    const written = this.#dispatch.enqueue(clientIds, message);
    for (const recipient of recipients) recipient.wake(message.topic);
    return written;
  }

  #sessionOf(clientId: string): Recipient {
    const known = this.#sessions.get(clientId);
    if (known !== undefined) return known;
    const session = new Recipient(clientId, false);
    this.#sessions.set(clientId, session);
    for (const { filter, qos } of this.#store.subscriptions(clientId)) {
      this.#table.add(filter, session, qos);
    }
    return session;
  }

  #forget(clientId: string): void {
    const session = this.#sessions.get(clientId);
    if (session === undefined) return;
    session.isGone = true;
    this.#sessions.delete(clientId);
    this.#table.removeAll(session);
  }
}

/** A message that waits must not keep the whole chunk alive that its socket was read in. */
function withOwnPayload(message: OutgoingMessage): OutgoingMessage {
  const { payload } = message;
  if (payload.buffer.byteLength <= payload.length * 2 + CHUNK_BYTES_MAX) return message;
  return { ...message, payload: Buffer.from(payload) };
}

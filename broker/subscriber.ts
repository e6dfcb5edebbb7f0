import type { Dispatch } from './dispatch.ts';
import type { InterestTable } from './interest-table.ts';
import type { OutgoingMessage } from './message.ts';
import { Outbox, type OutboxLink, type OutboxOwner, type OverflowReason } from './outbox.ts';
import { encodeSuback, encodeUnsuback, SUBACK_FAILURE } from './publish-frame.ts';
import type { Recipient } from './recipient.ts';
import { RetainedScan, sendRetained } from './retained-scan.ts';
import type { StoredSubscription } from './session-store.ts';
import type { SubscribePacket, UnsubscribePacket } from './subscribe-frame.ts';
import { hasWildcard } from './topic-filter.ts';

/** What one client may read. */
export interface SubscriberAccess {
  /** The filters that a requested one stands for; null when it is not granted [MQTT-3.8.4-5]. */
  grant(filter: string): readonly string[] | null;
  /** A canonical topic as this client spells it. */
  spell(topic: string): string;
  /** Retained messages that match a granted filter. */
  retained(filter: string): Iterable<OutgoingMessage> | AsyncIterable<OutgoingMessage>;
}

/** A connection that was let in. */
export interface SubscriberConnection {
  readonly clientId: string;
  /** True: the session ends with the connection. */
  readonly isClean: boolean;
  readonly link: OutboxLink;
  readonly access: SubscriberAccess;
  /** The client cannot follow: close its connection. */
  readonly onOverflow: (reason: OverflowReason) => void;
}

/** What all subscribers of a broker work with. */
export interface SubscriberParts {
  readonly table: InterestTable<Recipient>;
  readonly dispatch: Dispatch;
  /** A filter was answered with 0x80. */
  readonly onDenied: () => void;
}

/** A filter as the client wrote it, and what it was granted. */
interface Requested {
  readonly filter: string;
  readonly granted: readonly string[];
  readonly qos: 0 | 1;
}

/** What a session is subscribed to. */
interface Subscriptions {
  readonly requested: readonly Requested[];
  /** Granted filters of earlier connections: which requested ones they came from is not known any more. */
  readonly restored: ReadonlyMap<string, 0 | 1>;
}

/** Filters that one connection may request, and that are looked at in one packet. More are not granted. */
const FILTERS_MAX = 64;
/** Filters that these may stand for, in one session. */
const GRANTED_FILTERS_MAX = 4096;
/** Exact topics of one SUBSCRIBE whose retained messages are sent at once. */
const IMMEDIATE_TOPICS_MAX = 16;
const NOTHING: ReadonlyMap<string, 0 | 1> = new Map();

/**
 * The reading side of one connection: its subscriptions and what it is sent. SUBSCRIBE and UNSUBSCRIBE
 * are taken one at a time: the next one once the promise of the one before has resolved.
 */
export class Subscriber implements OutboxOwner {
  readonly #parts: SubscriberParts;
  readonly #recipient: Recipient;
  readonly #connection: SubscriberConnection;
  readonly #outbox: Outbox;
  #subscriptions: Subscriptions = { requested: [], restored: NOTHING };
  #scan: RetainedScan | null = null;

  /** Takes the recipient's place at the table for this connection; one that still has it loses it. */
  constructor(parts: SubscriberParts, recipient: Recipient, connection: SubscriberConnection) {
    this.#parts = parts;
    this.#recipient = recipient;
    this.#connection = connection;
    const { clientId, isClean } = connection;
    this.#outbox = new Outbox(parts.dispatch, this, isClean ? null : clientId);
    recipient.outbox?.close();
    recipient.outbox = this.#outbox;
    if (!isClean) this.#restore();
  }

  get link(): OutboxLink {
    return this.#connection.link;
  }

  /** Begins to send, what waits for a persistent session first; CONNACK must have been written. */
  start(): void {
    this.#outbox.start();
  }

  /** Sends a message to this connection alone, at QoS 0; it needs no subscription. */
  sendDirect(topic: string, payload: Buffer): void {
    this.#outbox.offer({ topic, payload, qos: 0, retain: false }, 0);
  }

  /** The client acknowledged a message. */
  acknowledge(packetId: number): void {
    this.#outbox.acknowledge(packetId);
  }

  /** The connection takes more again. */
  drained(): void {
    this.#outbox.drained();
  }

  /**
   * Answers a SUBSCRIBE: 0x80 for each filter that is not granted, and at most QoS 1 for the others
   * [MQTT-3.8.4-5, MQTT-3.9.3-1]. Retained messages follow SUBACK. Should the session store fail, no
   * filter is granted. Never rejects.
   * @returns what was granted; subscriptions of a persistent session are on disk then.
   */
  async subscribe({ messageId, subscriptions }: SubscribePacket): Promise<readonly string[]> {
    const { requested, restored } = this.#subscriptions;
    const next = { requested: [...requested], restored: new Map(restored) };
    const granted: (Requested | null)[] = [];
    for (const [index, { topic, qos }] of subscriptions.entries()) {
      granted.push(index < FILTERS_MAX ? this.#request(next, topic, qos) : null);
    }
    const change = changeBetween(this.#subscriptions, next);
    const isStored = this.#recipient.isClean || (await this.#store(change));
    if (isStored) this.#apply(next, change);
    else {
      granted.fill(null);
      await this.#takeBack(change);
    }
    for (const request of granted) if (request === null) this.#parts.onDenied();
    const codes = granted.map((request) => (request === null ? SUBACK_FAILURE : request.qos));
    this.#outbox.answer(encodeSuback(messageId, codes));
    const filters = filtersOf(granted.filter((request) => request !== null));
    this.#sendRetained(filters);
    return [...filters.keys()];
  }

  /**
   * Answers an UNSUBSCRIBE, also when there was no such subscription [MQTT-3.10.4-5]. A granted filter
   * that another requested one stands for stays. Never rejects.
   */
  async unsubscribe({ messageId, unsubscriptions }: UnsubscribePacket): Promise<void> {
    const restored = new Map(this.#subscriptions.restored);
    const requested = this.#subscriptions.requested.filter(
      ({ filter }) => !unsubscriptions.includes(filter),
    );
    if (restored.size > 0) {
      for (const filter of unsubscriptions.slice(0, FILTERS_MAX)) {
        const granted = this.#connection.access.grant(filter) ?? [filter];
        for (const one of granted) restored.delete(one);
      }
    }
    const next = { requested, restored };
    const change = changeBetween(this.#subscriptions, next);
    // What fails to leave the disk comes back with the next connection, and the client is told nothing.
    if (!this.#recipient.isClean) await this.#store(change);
    this.#apply(next, change);
    this.#outbox.answer(encodeUnsuback(messageId));
  }

  /** The connection has ended. A persistent session stays and gathers messages. */
  detach(): void {
    const recipient = this.#recipient;
    this.#outbox.close();
    if (recipient.outbox !== this.#outbox) return;
    recipient.outbox = null;
    if (recipient.isClean) this.#parts.table.removeAll(recipient);
    else this.#parts.dispatch.store.touchSession(recipient.clientId, false);
  }

  spell(topic: string): string {
    return this.#connection.access.spell(topic);
  }

  onOverflow(reason: OverflowReason): void {
    this.#connection.onOverflow(reason);
  }

  /**
   * Rights may have been taken away while the client was away. Its subscriptions have been granted
   * again; of others only the end of what was begun is sent [MQTT-3.10.4-3].
   */
  mayRead(topic: string): boolean {
    const interests = this.#parts.table.match(topic);
    if (interests.some(({ subscriber }) => subscriber === this.#recipient)) return true;
    return this.#connection.access.grant(topic) !== null;
  }

  /** Asks again for what earlier connections were granted, and gives up what is not granted any more. */
  #restore(): void {
    const { store } = this.#parts.dispatch;
    const stored = new Map<string, 0 | 1>();
    const restored = new Map<string, 0 | 1>();
    for (const { filter, qos } of store.subscriptions(this.#recipient.clientId)) {
      stored.set(filter, qos);
      for (const granted of this.#connection.access.grant(filter) ?? []) {
        restored.set(granted, maxQos(restored.get(granted), qos));
      }
    }
    const next = { requested: [], restored };
    const change = changeBetween({ requested: [], restored: stored }, next);
    void this.#store(change);
    this.#apply(next, change);
  }

  /** @returns null when the filter is not granted. */
  #request(
    next: { requested: Requested[]; restored: Map<string, 0 | 1> },
    filter: string,
    qos: number,
  ): Requested | null {
    const others = next.requested.filter((request) => request.filter !== filter);
    if (others.length >= FILTERS_MAX) return null;
    const granted = this.#connection.access.grant(filter);
    if (granted === null) return null;
    const absorbed = granted.filter((one) => next.restored.has(one));
    const grantedCount = others.reduce((sum, one) => sum + one.granted.length, granted.length);
    const total = grantedCount + next.restored.size - absorbed.length;
    if (total > GRANTED_FILTERS_MAX) return null;
    for (const one of absorbed) next.restored.delete(one);
    const request: Requested = { filter, granted, qos: qos === 0 ? 0 : 1 };
    next.requested = [...others, request];
    return request;
  }

  /** The store keeps in memory what it could not write: a refused filter must not stay there. */
  async #takeBack({ added }: Change): Promise<void> {
    const before = filtersOf(this.#subscriptions.requested, this.#subscriptions.restored);
    const filters = added.map(({ filter }) => filter).filter((filter) => !before.has(filter));
    await this.#store({ added: [], removed: filters });
  }

  async #store({ added, removed }: Change): Promise<boolean> {
    const { dispatch } = this.#parts;
    const { clientId } = this.#recipient;
    try {
      if (added.length > 0) await dispatch.store.addSubscriptions(clientId, added);
      if (removed.length > 0) await dispatch.store.removeSubscriptions(clientId, removed);
      return true;
    } catch (err) {
      dispatch.storeFailed(err);
      return false;
    }
  }

  #apply(next: Subscriptions, { added, removed }: Change): void {
    // Thousands of clients have nothing restored: they share one empty map.
    this.#subscriptions = next.restored.size > 0 ? next : { ...next, restored: NOTHING };
    const recipient = this.#recipient;
    const { outbox } = recipient;
    // The client may have gone meanwhile: for good, or to come again, which sees to the table itself.
    if (recipient.isGone || (outbox === null ? recipient.isClean : outbox !== this.#outbox)) return;
    for (const { filter, qos } of added) this.#parts.table.add(filter, recipient, qos);
    for (const filter of removed) {
      this.#parts.table.remove(filter, recipient);
      this.#scan?.drop(filter);
    }
  }

  #sendRetained(filters: ReadonlyMap<string, 0 | 1>): void {
    const { access } = this.#connection;
    for (const [filter, qos] of filters) {
      const isExact = filters.size <= IMMEDIATE_TOPICS_MAX && !hasWildcard(filter);
      const messages = isExact ? access.retained(filter) : null;
      if (messages === null || Symbol.asyncIterator in messages) {
        this.#scanner().add(filter, qos);
      } else {
        for (const message of messages) sendRetained(this.#outbox, message, qos);
      }
    }
  }

  #scanner(): RetainedScan {
    const { dispatch } = this.#parts;
    return (this.#scan ??= new RetainedScan({
      recipient: this.#recipient,
      outbox: this.#outbox,
      read: (filter) => this.#connection.access.retained(filter),
      isTelemetry: dispatch.isTelemetry,
      onFailure: (err) => dispatch.retainedFailed(err),
    }));
  }
}

/** What has to be added, or given another QoS, and removed. */
interface Change {
  readonly added: readonly StoredSubscription[];
  readonly removed: readonly string[];
}

function changeBetween(before: Subscriptions, after: Subscriptions): Change {
  const old = filtersOf(before.requested, before.restored);
  const wanted = filtersOf(after.requested, after.restored);
  const added: StoredSubscription[] = [];
  for (const [filter, qos] of wanted) if (old.get(filter) !== qos) added.push({ filter, qos });
  return { added, removed: [...old.keys()].filter((filter) => !wanted.has(filter)) };
}

/** Granted filters with the highest QoS of the requested ones that they come from. */
function filtersOf(
  requested: readonly Requested[],
  restored: ReadonlyMap<string, 0 | 1> = NOTHING,
): Map<string, 0 | 1> {
  const filters = new Map(restored);
  for (const { granted, qos } of requested) {
    for (const filter of granted) filters.set(filter, maxQos(filters.get(filter), qos));
  }
  return filters;
}

function maxQos(qos: 0 | 1 | undefined, other: 0 | 1): 0 | 1 {
  return qos === 1 ? 1 : other;
}

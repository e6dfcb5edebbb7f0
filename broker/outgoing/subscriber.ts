import type { Dispatch } from './dispatch.ts';
import type { InterestTable } from './interest-table.ts';
import type { OutgoingMessage } from '../message.ts';
import { Outbox, type OutboxLink, type OutboxOwner, type OverflowReason } from './outbox.ts';
import { encodeSuback, encodeUnsuback, SUBACK_FAILURE } from './publish-frame.ts';
import type { Recipient } from './recipient.ts';
import { RetainedScan, sendRetained } from './retained-scan.ts';
import type { StoredSubscription } from '../store/session-store.ts';
import type { SubscribePacket, UnsubscribePacket } from '../subscribe-frame.ts';
import { hasWildcard } from '../store/topic-filter.ts';

/** What one client may read. */
export interface SubscriberAccess {
  /** The filters that a requested one stands for; null when it is not granted [MQTT-3.8.4-5]. */
  grant(filter: string): readonly string[] | null;
  /** A filter was answered with 0x80 because it is not granted. */
  denied(filter: string): void;
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

/** Filters that one connection may request, and that are looked at in one packet. More are not granted. */
const FILTERS_MAX = 64;
/** Filters that these may stand for, in one session. */
const GRANTED_FILTERS_MAX = 2000;
/** Exact topics of one SUBSCRIBE whose retained messages are sent at once. */
const IMMEDIATE_TOPICS_MAX = 16;
/** Thousands of clients request nothing: they share one empty list. */
const NOTHING: readonly Requested[] = [];

/**
 * The reading side of one connection: its subscriptions and what it is sent. SUBSCRIBE and UNSUBSCRIBE
 * are taken one at a time: the next one once the promise of the one before has resolved.
 */
export class Subscriber implements OutboxOwner {
  readonly #parts: SubscriberParts;
  readonly #recipient: Recipient;
  readonly #connection: SubscriberConnection;
  readonly #outbox: Outbox;
  #requested: readonly Requested[] = NOTHING;
  #scan: RetainedScan | null = null;
  /** Filters that the last SUBSCRIBE or UNSUBSCRIBE has added and removed. */
  changes = 0;

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
    const next = { requested: [...this.#requested], looked: 0 };
    const granted: (Requested | null)[] = [];
    for (const [index, { topic, qos }] of subscriptions.entries()) {
      granted.push(index < FILTERS_MAX ? this.#request(next, topic, qos) : null);
    }
    const change = changeBetween(this.#requested, next.requested);
    const isStored = this.#recipient.isClean || (await this.#store(change));
    if (isStored) this.#apply(next.requested, change);
    else {
      granted.fill(null);
      await this.#takeBack(change);
    }
    const codes = granted.map((request) => (request === null ? SUBACK_FAILURE : request.qos));
    this.#outbox.answer(encodeSuback(messageId, codes));
    for (const [index, request] of granted.entries()) {
      if (request !== null) continue;
      this.#parts.onDenied();
      if (isStored) this.#connection.access.denied(subscriptions[index]?.topic ?? '');
    }
    const filters = filtersOf(granted.filter((request) => request !== null));
    this.#sendRetained(filters);
    return [...filters.keys()];
  }

  /**
   * Answers an UNSUBSCRIBE, also when there was no such subscription [MQTT-3.10.4-5]. A granted filter
   * that another requested one stands for stays. Never rejects.
   */
  async unsubscribe({ messageId, unsubscriptions }: UnsubscribePacket): Promise<void> {
    const requested = this.#requested.filter(({ filter }) => !unsubscriptions.includes(filter));
    const change = changeBetween(this.#requested, requested);
    // What fails to leave the disk comes back with the next connection, and the client is told nothing.
    if (!this.#recipient.isClean) await this.#store(change);
    this.#apply(requested, change);
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

  /** Asks again for what earlier connections requested: rights may have changed since. */
  #restore(): void {
    const { store } = this.#parts.dispatch;
    const { clientId } = this.#recipient;
    const ended: string[] = [];
    const requested: Requested[] = [];
    for (const { filter, qos } of store.requests(clientId)) {
      const granted = this.#connection.access.grant(filter);
      if (granted === null) ended.push(filter);
      else requested.push({ filter, granted, qos });
    }
    const stored = store.subscriptions(clientId).map(({ filter, qos }) => [filter, qos] as const);
    const change = difference(new Map(stored), filtersOf(requested));
    void this.#store({ ...change, requests: [], ended });
    this.#apply(requested, change);
  }

  /** @returns null when the filter is not granted. */
  #request(
    next: { requested: Requested[]; looked: number },
    filter: string,
    qos: number,
  ): Requested | null {
    const others = next.requested.filter((request) => request.filter !== filter);
    if (others.length >= FILTERS_MAX || next.looked > GRANTED_FILTERS_MAX) return null;
    const granted = this.#connection.access.grant(filter);
    if (granted === null) return null;
    next.looked += granted.length;
    const total = others.reduce((sum, one) => sum + one.granted.length, granted.length);
    if (total > GRANTED_FILTERS_MAX) return null;
    const request: Requested = { filter, granted, qos: qos === 0 ? 0 : 1 };
    next.requested = [...others, request];
    return request;
  }

  /** The store keeps in memory what it could not write: a refused filter must not stay there. */
  async #takeBack({ added, requests }: Change): Promise<void> {
    const granted = filtersOf(this.#requested);
    const requested = requestsOf(this.#requested);
    await this.#store({
      added: [],
      removed: added.map(({ filter }) => filter).filter((filter) => !granted.has(filter)),
      requests: [],
      ended: requests.map(({ filter }) => filter).filter((filter) => !requested.has(filter)),
    });
  }

  async #store({ added, removed, requests, ended }: Change): Promise<boolean> {
    const { dispatch } = this.#parts;
    const { clientId } = this.#recipient;
    try {
      if (requests.length > 0 || ended.length > 0) {
        await dispatch.store.changeRequests(clientId, requests, ended);
      }
      if (added.length > 0) await dispatch.store.addSubscriptions(clientId, added);
      if (removed.length > 0) await dispatch.store.removeSubscriptions(clientId, removed);
      return true;
    } catch (err) {
      dispatch.storeFailed(err);
      return false;
    }
  }

  #apply(
    requested: readonly Requested[],
    { added, removed }: Pick<Change, 'added' | 'removed'>,
  ): void {
    this.#requested = requested.length > 0 ? requested : NOTHING;
    this.changes = added.length + removed.length;
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
  /** The same of the filters as they were requested. */
  readonly requests: readonly StoredSubscription[];
  readonly ended: readonly string[];
}

function changeBetween(before: readonly Requested[], after: readonly Requested[]): Change {
  const granted = difference(filtersOf(before), filtersOf(after));
  const requested = difference(requestsOf(before), requestsOf(after));
  return { ...granted, requests: requested.added, ended: requested.removed };
}

function difference(
  old: ReadonlyMap<string, 0 | 1>,
  wanted: ReadonlyMap<string, 0 | 1>,
): Pick<Change, 'added' | 'removed'> {
  const added: StoredSubscription[] = [];
  for (const [filter, qos] of wanted) if (old.get(filter) !== qos) added.push({ filter, qos });
  return { added, removed: [...old.keys()].filter((filter) => !wanted.has(filter)) };
}

function requestsOf(requested: readonly Requested[]): Map<string, 0 | 1> {
  return new Map(requested.map(({ filter, qos }) => [filter, qos]));
}

/** Granted filters with the highest QoS of the requested ones that they come from. */
function filtersOf(requested: readonly Requested[]): Map<string, 0 | 1> {
  const filters = new Map<string, 0 | 1>();
  for (const { granted, qos } of requested) {
    for (const filter of granted) filters.set(filter, maxQos(filters.get(filter), qos));
  }
  return filters;
}

function maxQos(qos: 0 | 1 | undefined, other: 0 | 1): 0 | 1 {
  return qos === 1 ? 1 : other;
}

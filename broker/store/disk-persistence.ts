import { Readable } from 'node:stream';
import { SessionStoreError } from '../../errors.ts';
import { hashKey, numberKey, storedAtOf } from './disk-codec.ts';
import { EngineQueues } from './disk-outgoing.ts';
import { decodePacket, encodePacket, keptOf, type EnginePacket } from './disk-packets.ts';
import type { DiskStore } from './disk-store.ts';
import {
  EngineSubscriptions,
  type ClientSubscription,
  type EngineSubscription,
} from './disk-subscriptions.ts';
import type { DiskWriter } from './disk-writer.ts';

/** A client as the engine names it to its persistence. */
export interface EngineClient {
  readonly id: string;
}

/** Wills bear the id of the broker that has their client. */
interface EngineBroker {
  readonly id: string;
}

/** Tables of the engine by the first letter of their keys; the hash of a client id follows. */
const TABLE = { incoming: 'i', will: 'w' } as const;
const PRUNE_EVERY_MS = 3_600_000;

/**
 * What `aedes-persistence` 11 asks for, on the disk of a {@link DiskStore}. Retained messages are those
 * of the store. Subscriptions and queues are the engine's own and apart from the store's sessions, so
 * that a broker with both sends nothing twice; their bounds are the same.
 */
export class DiskPersistence {
  readonly #store: DiskStore;
  readonly #writer: DiskWriter;
  readonly #subscriptions: EngineSubscriptions;
  readonly #queues: EngineQueues;
  #broker: EngineBroker = { id: '' };
  #pruneTimer: NodeJS.Timeout | undefined;
  #isDestroyed = false;

  constructor(store: DiskStore) {
    this.#store = store;
    this.#writer = store.parts.writer;
    this.#subscriptions = new EngineSubscriptions(this.#writer);
    this.#queues = new EngineQueues(store);
  }

  /** The engine's broker; the abstract suite asks for it. */
  get broker(): EngineBroker {
    return this.#broker;
  }

  /** Takes in what is on disk. */
  async setup(broker: unknown): Promise<void> {
    this.#broker = broker as EngineBroker;
    this.#subscriptions.restore();
    this.#queues.restore();
    this.#prune();
    this.#pruneTimer = setInterval(() => this.#prune(), PRUNE_EVERY_MS).unref();
  }

  async storeRetained(packet: EnginePacket): Promise<void> {
    const { topic = '', payload = '', qos = 0, retain: _retain, ...rest } = packet;
    const { retained } = this.#store.parts;
    const bytes = typeof payload === 'string' ? Buffer.from(payload) : payload;
    if (!retained.put({ topic, payload: bytes, qos }, JSON.stringify(rest))) {
      throw new SessionStoreError('too much waits for the disk');
    }
    await this.#writer.flushed();
  }

  createRetainedStream(filter: string): Readable {
    return this.createRetainedStreamCombi([filter]);
  }

  createRetainedStreamCombi(filters: readonly string[]): Readable {
    return Readable.from(this.#retainedPackets(filters));
  }

  async addSubscriptions(
    client: EngineClient,
    subscriptions: readonly EngineSubscription[],
  ): Promise<void> {
    this.#subscriptions.add(client.id, subscriptions);
    await this.#writer.flushed();
  }

  async removeSubscriptions(client: EngineClient, filters: readonly string[]): Promise<void> {
    this.#subscriptions.remove(client.id, filters);
    await this.#writer.flushed();
  }

  async subscriptionsByClient(client: EngineClient): Promise<EngineSubscription[]> {
    return this.#subscriptions.ofClient(client.id);
  }

  async countOffline(): Promise<{ subsCount: number; clientsCount: number }> {
    return this.#subscriptions.count();
  }

  async subscriptionsByTopic(topic: string): Promise<ClientSubscription[]> {
    return this.#subscriptions.matching(topic);
  }

  async cleanSubscriptions(client: EngineClient): Promise<void> {
    this.#subscriptions.clean(client.id);
    await this.#writer.flushed();
  }

  getClientList(filter: string): Readable {
    return Readable.from(this.#subscriptions.clientsOf(filter));
  }

  async outgoingEnqueue(subscription: { clientId: string }, packet: EnginePacket): Promise<void> {
    await this.outgoingEnqueueCombi([subscription], packet);
  }

  async outgoingEnqueueCombi(
    subscriptions: readonly { clientId: string }[],
    packet: EnginePacket,
  ): Promise<void> {
    const record = encodePacket(keptOf(packet, undefined));
    for (const { clientId } of subscriptions) this.#queues.of(clientId).append(record);
    await this.#writer.flushed();
  }

  /** Notes the packet identifier under which a PUBLISH goes out, or puts its PUBREL in its place. */
  async outgoingUpdate(client: EngineClient, packet: EnginePacket): Promise<void> {
    const found = this.#queues.find(client.id, packet);
    if (found === undefined) throw new Error('no such packet');
    const queue = this.#queues.of(client.id);
    if (packet.cmd === 'pubrel') {
      // At the end: PUBRELs go out in the order of their PUBRECs [MQTT-4.6.0-4].
      queue.remove(found.sequence);
      queue.append(encodePacket(packet));
    } else {
      queue.markSent(found.sequence, packet.messageId ?? 0);
    }
    await this.#writer.flushed();
  }

  async outgoingClearMessageId(
    client: EngineClient,
    { messageId }: EnginePacket,
  ): Promise<EnginePacket | undefined> {
    const found = messageId === undefined ? undefined : this.#queues.find(client.id, { messageId });
    if (found === undefined) return undefined;
    this.#queues.of(client.id).remove(found.sequence);
    await this.#writer.flushed();
    return found.packet;
  }

  outgoingStream(client: EngineClient): Readable {
    return Readable.from(this.#queues.packetsOf(client.id).map(({ packet }) => packet));
  }

  async incomingStorePacket(client: EngineClient, packet: EnginePacket): Promise<void> {
    const record = encodePacket(keptOf(packet, packet.messageId));
    this.#writer.put(incomingKey(client, packet), record);
    await this.#writer.flushed();
  }

  async incomingGetPacket(client: EngineClient, packet: EnginePacket): Promise<EnginePacket> {
    const record = this.#writer.get(incomingKey(client, packet));
    if (record === undefined) throw new Error('no such packet');
    return decodePacket(record);
  }

  async incomingDelPacket(client: EngineClient, packet: EnginePacket): Promise<void> {
    const key = incomingKey(client, packet);
    if (!this.#writer.has(key)) throw new Error('no such packet');
    this.#writer.remove(key);
    await this.#writer.flushed();
  }

  async cleanIncoming(client: EngineClient): Promise<void> {
    const rows = [...this.#writer.scan(TABLE.incoming + hashKey(client.id))];
    for (const { key } of rows) this.#writer.remove(key);
    if (rows.length > 0) await this.#writer.flushed();
  }

  /** Adds the ids of broker and client to the packet, as the engine expects. */
  async putWill(client: EngineClient, packet: EnginePacket): Promise<void> {
    Object.assign(packet, { brokerId: this.#broker.id, clientId: client.id });
    this.#writer.put(TABLE.will + hashKey(client.id), encodePacket(packet));
    await this.#writer.flushed();
  }

  async getWill(client: EngineClient): Promise<EnginePacket | undefined> {
    const record = this.#writer.get(TABLE.will + hashKey(client.id));
    return record === undefined ? undefined : decodePacket(record);
  }

  async delWill(client: EngineClient): Promise<EnginePacket | undefined> {
    const will = await this.getWill(client);
    if (will === undefined) return undefined;
    this.#writer.remove(TABLE.will + hashKey(client.id));
    await this.#writer.flushed();
    return will;
  }

  /** Wills of brokers that are not among these, by their ids. */
  streamWill(brokers: object = {}): Readable {
    return Readable.from(this.#willsBut(new Set(Object.keys(brokers))));
  }

  /** Ends the persistence; the store stays open. @throws {Error} the second time. */
  async destroy(): Promise<void> {
    if (this.#isDestroyed) throw new Error('destroyed already');
    this.#isDestroyed = true;
    clearInterval(this.#pruneTimer);
  }

  *#retainedPackets(filters: readonly string[]): Generator<EnginePacket> {
    for (const filter of filters) {
      for (const record of this.#store.parts.retained.records(filter)) yield decodePacket(record);
    }
  }

  *#willsBut(brokers: ReadonlySet<string>): Generator<EnginePacket> {
    for (const { value } of this.#writer.scan(TABLE.will)) {
      const will = decodePacket(value);
      if (!brokers.has(will.brokerId ?? '')) yield will;
    }
  }

  /** A client that stays away longer than its session is kept does not send its PUBREL any more. */
  #prune(): void {
    const oldestMs = Date.now() - this.#store.limits.sessionAgeMaxMs;
    for (const { key, value } of this.#writer.scan(TABLE.incoming)) {
      if (storedAtOf(value) < oldestMs) this.#writer.remove(key);
    }
  }
}

/** The engine's persistence over a store that stays the caller's to close. */
export function createDiskPersistence(store: DiskStore): DiskPersistence {
  return new DiskPersistence(store);
}

function incomingKey(client: EngineClient, { messageId = 0 }: EnginePacket): string {
  return TABLE.incoming + hashKey(client.id) + numberKey(messageId);
}

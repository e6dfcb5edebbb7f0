import { Readable } from 'node:stream';
import type { SessionStore } from './store/session-store.ts';

/** A packet as the engine stores it. */
interface StoredPacket {
  messageId?: number | undefined;
}
/** A client as the engine names it to its persistence. */
interface ClientRef {
  readonly id: string;
  readonly clean?: boolean;
}

/** What the engine keeps on disk: QoS 2 identifiers and wills; of the interface of `aedes-persistence`. */
export interface IncomingPersistence {
  setup(broker: unknown): Promise<void>;
  incomingStorePacket(client: ClientRef, packet: StoredPacket): Promise<void>;
  incomingGetPacket(client: ClientRef, packet: StoredPacket): Promise<StoredPacket>;
  incomingDelPacket(client: ClientRef, packet: StoredPacket): Promise<void>;
  cleanIncoming(client: ClientRef): Promise<void>;
  putWill(client: ClientRef, packet: object): Promise<void>;
  delWill(client: ClientRef): Promise<unknown>;
  streamWill(brokers?: object): Readable;
}

/**
 * The persistence that the engine is given. Subscriptions and outgoing messages are not the engine's:
 * of them it sees nothing. Of sessions that end with their connection nothing is written to disk.
 */
export class EnginePersistence {
  readonly #store: SessionStore;
  readonly #disk: IncomingPersistence;
  /** Sessions that were there when their client came, until CONNACK is made. */
  readonly #present = new Set<string>();
  /** QoS 2 messages of clean sessions without PUBREL, by client and packet identifier. */
  readonly #incoming = new Map<string, Map<number, StoredPacket>>();
  /** Kept sessions that a clean one is about to replace. */
  readonly #replaced = new Set<string>();
  readonly #keepsWills: boolean;

  /** @param keepsWills whether the will of a client outlives a crash of the program. */
  constructor(store: SessionStore, disk: IncomingPersistence, keepsWills: boolean) {
    this.#store = store;
    this.#disk = disk;
    this.#keepsWills = keepsWills;
  }

  /** Tells that the next CONNACK of this client says "session present" [MQTT-3.2.2-2]. */
  markPresent(clientId: string): void {
    this.#present.add(clientId);
  }

  async setup(broker: unknown): Promise<void> {
    await this.#disk.setup(broker);
  }

  /** (18) A kept session is present with no subscription too; this one is granted to nobody. */
  async subscriptionsByClient({ id }: ClientRef): Promise<{ topic: string; qos: 0 }[]> {
    return this.#present.delete(id) ? [{ topic: 'session', qos: 0 }] : [];
  }

  /** A clean session takes the place of a kept one [MQTT-3.1.2-6]. */
  async cleanSubscriptions({ id }: ClientRef): Promise<void> {
    this.#present.delete(id);
    if (!this.#store.hasSession(id)) return;
    this.#replaced.add(id);
    await this.#store.dropSession(id);
  }

  outgoingStream(): Readable {
    return Readable.from([]);
  }

  async outgoingUpdate(): Promise<void> {}

  async outgoingClearMessageId(): Promise<undefined> {
    return undefined;
  }

  async incomingStorePacket(client: ClientRef, packet: StoredPacket): Promise<void> {
    if (client.clean === false) return this.#disk.incomingStorePacket(client, packet);
    const packets = this.#incoming.get(client.id) ?? new Map<number, StoredPacket>();
    packets.set(packet.messageId ?? 0, packet);
    this.#incoming.set(client.id, packets);
  }

  async incomingGetPacket(client: ClientRef, packet: StoredPacket): Promise<StoredPacket> {
    if (client.clean === false) return this.#disk.incomingGetPacket(client, packet);
    const found = this.#incoming.get(client.id)?.get(packet.messageId ?? 0);
    if (found === undefined) throw new Error('no such packet');
    return found;
  }

  async incomingDelPacket(client: ClientRef, packet: StoredPacket): Promise<void> {
    if (client.clean === false) return this.#disk.incomingDelPacket(client, packet);
    this.#incoming.get(client.id)?.delete(packet.messageId ?? 0);
  }

  async cleanIncoming(client: ClientRef): Promise<void> {
    this.#incoming.delete(client.id);
    if (this.#replaced.delete(client.id)) await this.#disk.cleanIncoming(client);
  }

  async putWill(client: ClientRef, packet: object): Promise<void> {
    if (this.#keepsWills) await this.#disk.putWill(client, packet);
  }

  async delWill(client: ClientRef): Promise<unknown> {
    return this.#keepsWills ? this.#disk.delWill(client) : undefined;
  }

  streamWill(brokers?: object): Readable {
    return this.#keepsWills ? this.#disk.streamWill(brokers) : Readable.from([]);
  }
}

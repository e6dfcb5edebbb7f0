import { hashKey } from './disk-codec.ts';
import { isMeant, toQueuedPacket, type EnginePacket, type QueuedPacket } from './disk-packets.ts';
import { queuePrefixOf, StoredQueue } from './disk-queue.ts';
import type { DiskStore } from './disk-store.ts';

/** Tables by the first letter of their keys; the hash of a client id follows. */
const TABLE = { message: 'q', packetId: 'p' } as const;

/** The queues that the engine keeps itself, with the bounds of the store's sessions. */
export class EngineQueues {
  readonly #store: DiskStore;
  /** By the hash of the client id. */
  readonly #queues = new Map<string, StoredQueue>();

  constructor(store: DiskStore) {
    this.#store = store;
  }

  /** Reads in what is on disk. */
  restore(): void {
    const { writer } = this.#store.parts;
    for (const { key, value } of writer.scan(TABLE.message)) {
      this.#open(queuePrefixOf(key).slice(1)).restore(key, value.length);
    }
    for (const { key, value } of writer.scan(TABLE.packetId)) {
      const queue = this.#open(queuePrefixOf(key).slice(1));
      if (!queue.restorePacketId(key, value.readUInt16BE())) writer.remove(key);
    }
  }

  /** The queue of a client, made when there is none. */
  of(clientId: string): StoredQueue {
    return this.#open(hashKey(clientId));
  }

  /** All packets of a client, oldest first. */
  packetsOf(clientId: string): QueuedPacket[] {
    const queue = this.#queues.get(hashKey(clientId));
    queue?.dropExpired(Date.now());
    return (queue?.read(0, queue.messages) ?? []).map(toQueuedPacket);
  }

  /** The packet that the engine means; all of the client's are read for it. */
  find(clientId: string, named: EnginePacket): QueuedPacket | undefined {
    return this.packetsOf(clientId).find(({ packet }) => isMeant(packet, named));
  }

  #open(owner: string): StoredQueue {
    const known = this.#queues.get(owner);
    if (known !== undefined) return known;
    const { writer, totals } = this.#store.parts;
    const queue = new StoredQueue({
      writer,
      messagePrefix: TABLE.message + owner,
      packetIdPrefix: TABLE.packetId + owner,
      limits: this.#store.limits,
      totals,
    });
    this.#queues.set(owner, queue);
    return queue;
  }
}

// HOT PATH: once per acknowledgement; see bench/RESULTS.md
import type { Duplex } from 'node:stream';

/**
 * What a client does not read, in bytes; beyond it its socket is not read either. Well above what an
 * outbox leaves in the socket, so that a slow subscriber is still heard.
 */
const UNREAD_BYTES_MAX = 131_072;

/** A PUBLISH at QoS 1 that waits for its PUBACK. */
export interface PendingPuback {
  readonly packetId: number;
  isStored: boolean;
}

/**
 * The broker's own answers to a client: PUBACKs in the order of their PUBLISHes [MQTT-4.6.0-2], all of
 * one turn of the event loop in one write, and whatever else must not wait.
 */
export class Answers {
  readonly #socket: Duplex;
  readonly #pending: PendingPuback[] = [];
  readonly #inFlight = new Set<number>();
  #acknowledged: number[] = [];
  /** True while the client leaves too much unread; until the socket drains. */
  isUnread = false;

  constructor(socket: Duplex) {
    this.#socket = socket;
    socket.on('drain', () => {
      this.isUnread = false;
    });
  }

  /** Notes a PUBLISH at QoS 1: its PUBACK comes behind those of all that were noted before. */
  expect(packetId: number): PendingPuback {
    const pending = { packetId, isStored: false };
    this.#pending.push(pending);
    this.#inFlight.add(packetId);
    return pending;
  }

  /** Whether a PUBLISH under this identifier waits for its PUBACK. */
  isInFlight(packetId: number): boolean {
    return this.#inFlight.has(packetId);
  }

  /** The oldest PUBLISH at QoS 1 without PUBACK. */
  get oldest(): PendingPuback | null {
    return this.#pending[0] ?? null;
  }

  /**
   * Sends a PUBACK at the end of this turn, or when those before it can be sent.
   * @returns how many are sent now.
   */
  puback(stored: PendingPuback): number {
    stored.isStored = true;
    if (this.#pending[0] !== stored) return 0;
    let ready = 1;
    while (this.#pending[ready]?.isStored === true) ready += 1;
    if (this.#acknowledged.length === 0) queueMicrotask(() => this.#sendPubacks());
    for (const { packetId } of this.#pending.splice(0, ready)) {
      this.#inFlight.delete(packetId);
      this.#acknowledged.push(packetId);
    }
    return ready;
  }

  /** @returns false when the socket takes no more before it drains. */
  write(bytes: Buffer): boolean {
    if (this.#socket.destroyed) return true;
    const hasRoom = this.#socket.write(bytes);
    if (!hasRoom && this.#socket.writableLength > UNREAD_BYTES_MAX) this.isUnread = true;
    return hasRoom;
  }

  #sendPubacks(): void {
    const packetIds = this.#acknowledged;
    this.#acknowledged = [];
    if (this.#socket.destroyed) return;
    const pubacks = Buffer.allocUnsafe(packetIds.length * 4);
    let at = 0;
    for (const packetId of packetIds) at = pubacks.writeUInt32BE(0x4002_0000 + packetId, at);
    this.write(pubacks);
  }
}

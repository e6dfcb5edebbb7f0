// HOT PATH: once per acknowledgement; see bench/RESULTS.md
import type { Duplex } from 'node:stream';

/**
 * What a client does not read, in bytes; beyond it its socket is not read either. Well above what an
 * outbox leaves in the socket, so that a slow subscriber is still heard.
 */
const UNREAD_BYTES_MAX = 131_072;

/**
 * The broker's own answers to a client: PUBACKs in the order in which they are given, all of one turn
 * of the event loop in one write, and whatever else must not wait.
 */
export class Answers {
  readonly #socket: Duplex;
  #acknowledged: number[] = [];
  /** True while the client leaves too much unread; until the socket drains. */
  isUnread = false;

  constructor(socket: Duplex) {
    this.#socket = socket;
    socket.on('drain', () => {
      this.isUnread = false;
    });
  }

  /** Sends a PUBACK at the end of this turn. */
  puback(packetId: number): void {
    if (this.#acknowledged.push(packetId) === 1) queueMicrotask(() => this.#sendPubacks());
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
    const pubacks = Buffer.allocUnsafe(packetIds.length * 4);
    let at = 0;
    for (const packetId of packetIds) at = pubacks.writeUInt32BE(0x4002_0000 + packetId, at);
    this.write(pubacks);
  }
}

import { connect, type Socket } from 'node:net';
import { reasonOf } from '../errors.ts';
import type { PublishRing } from './publish-ring.ts';

/** What a connection tells the generator, and asks it. */
export interface ConnectionObserver {
  /** CONNACK came, with return code 0. */
  opened(): void;
  /** Called for each PUBACK, before its slot is used again. */
  acknowledged(connection: GeneratorConnection, slot: number): void;
  /** How many of `wanted` messages may be sent now. */
  allowance(wanted: number): number;
  /** The connection ended, or could not be opened. */
  closed(connection: GeneratorConnection, wasOpen: boolean, reason: string): void;
}

/** Where a connection goes. */
export interface Target {
  host: string;
  port: number;
  /** The CONNECT packet, ready to be sent. */
  connectPacket: Buffer;
}

const FRAME_BYTES = 4;
const CONNACK = 0x20;
const PUBACK = 0x40;
/** One buffer for what all sockets read: each chunk is used up before the next one is read. */
const readBuffer = Buffer.allocUnsafeSlow(65_536);

/**
 * One MQTT connection that keeps a window of messages in flight, on as little CPU as node:net allows.
 * Only CONNACK and PUBACK are understood, both four bytes long; anything else closes the connection.
 */
export class GeneratorConnection {
  readonly number: number;
  readonly ring: PublishRing;
  readonly #target: Target;
  readonly #observer: ConnectionObserver;
  /** When each slot was first sent, `performance.now()`. */
  readonly sentAtMs: Float64Array;
  #socket: Socket | null = null;
  #isOpen = false;
  /** Oldest slot in flight, and how many are. */
  #oldest = 0;
  #inFlight = 0;
  readonly #partial = Buffer.alloc(FRAME_BYTES);
  #partialBytes = 0;

  constructor(number: number, ring: PublishRing, target: Target, observer: ConnectionObserver) {
    this.number = number;
    this.ring = ring;
    this.#target = target;
    this.#observer = observer;
    this.sentAtMs = new Float64Array(ring.window);
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Opens the socket and sends CONNECT. What was in flight before is sent again after CONNACK. */
  open(): void {
    this.#partialBytes = 0;
    let reason = 'closed by the broker';
    const socket = connect({
      host: this.#target.host,
      port: this.#target.port,
      noDelay: true,
      onread: {
        buffer: readBuffer,
        callback: (bytes: number) => {
          const fault = this.#read(bytes);
          if (fault === null) return true;
          reason = fault;
          socket.destroy();
          return false;
        },
      },
    });
    this.#socket = socket;
    socket.write(this.#target.connectPacket);
    socket.on('error', (error) => {
      reason = reasonOf(error);
    });
    socket.on('close', () => {
      const wasOpen = this.#isOpen;
      this.#isOpen = false;
      this.#observer.closed(this, wasOpen, reason);
    });
  }

  /** Sends as many new messages as the window and the observer allow. */
  fill(): void {
    if (!this.#isOpen) return;
    const count = this.#observer.allowance(this.ring.window - this.#inFlight);
    if (count <= 0) return;
    const first = (this.#oldest + this.#inFlight) % this.ring.window;
    const nowMs = Date.now();
    const sentAtMs = performance.now();
    for (let index = 0; index < count; index += 1) {
      const slot = (first + index) % this.ring.window;
      this.ring.renew(slot, nowMs);
      this.sentAtMs[slot] = sentAtMs;
    }
    this.#inFlight += count;
    this.#write(first, count);
  }

  /** Closes the socket without DISCONNECT, as a board that loses power. */
  close(): void {
    this.#socket?.destroy();
  }

  #write(first: number, count: number): void {
    const { bytes, slotBytes, window } = this.ring;
    const straight = Math.min(count, window - first);
    this.#socket?.write(bytes.subarray(first * slotBytes, (first + straight) * slotBytes));
    if (straight < count) this.#socket?.write(bytes.subarray(0, (count - straight) * slotBytes));
  }

  /** @returns what is wrong with the bytes, or null */
  #read(bytes: number): string | null {
    let at = 0;
    let fault: string | null = null;
    if (this.#partialBytes > 0) {
      const missing = Math.min(FRAME_BYTES - this.#partialBytes, bytes);
      readBuffer.copy(this.#partial, this.#partialBytes, 0, missing);
      this.#partialBytes += missing;
      if (this.#partialBytes < FRAME_BYTES) return null;
      this.#partialBytes = 0;
      fault = this.#frame(this.#partial, 0);
      at = missing;
    }
    for (; at + FRAME_BYTES <= bytes && fault === null; at += FRAME_BYTES) {
      fault = this.#frame(readBuffer, at);
    }
    if (fault === null && at < bytes) {
      readBuffer.copy(this.#partial, 0, at, bytes);
      this.#partialBytes = bytes - at;
    }
    if (fault === null) this.fill();
    return fault;
  }

  #frame(buffer: Buffer, at: number): string | null {
    if (buffer[at] === PUBACK) {
      const slot = (((buffer[at + 2] ?? 0) << 8) | (buffer[at + 3] ?? 0)) - 1;
      if (slot !== this.#oldest || this.#inFlight === 0) {
        return `PUBACK ${slot + 1} out of order, ${this.#oldest + 1} was next [MQTT-4.6.0-2]`;
      }
      this.#observer.acknowledged(this, slot);
      this.#oldest = slot + 1 === this.ring.window ? 0 : slot + 1;
      this.#inFlight -= 1;
      return null;
    }
    if (buffer[at] !== CONNACK) return `an unexpected packet of type ${(buffer[at] ?? 0) >> 4}`;
    if (buffer[at + 3] !== 0) return `CONNACK ${buffer[at + 3]}`;
    this.#isOpen = true;
    this.#observer.opened();
    this.#sendAgain();
    return null;
  }

  #sendAgain(): void {
    if (this.#inFlight === 0) return;
    for (let index = 0; index < this.#inFlight; index += 1) {
      this.ring.setDup((this.#oldest + index) % this.ring.window);
    }
    this.#write(this.#oldest, this.#inFlight);
  }
}

// HOT PATH: once per message and subscriber; see bench/RESULTS.md
import type { Dispatch, DispatchedOutbox } from './dispatch.ts';
import { MessageQueue, messageBytes } from './message-queue.ts';
import type { OutgoingMessage } from '../message.ts';
import { LARGE_PAYLOAD_BYTES } from './publish-frame.ts';
import type { QueuedMessage } from '../store/session-store.ts';

/** The writing side of a connection. */
export interface OutboxLink {
  /** Takes the bytes in any case. @returns false when there should be no more before `drained`. */
  deliver(bytes: Buffer): boolean;
  /** Bytes that were taken and not sent yet. */
  readonly unsentBytes: number;
}

/** Whose outbox it is. */
export interface OutboxOwner {
  readonly link: OutboxLink;
  /** A canonical topic as this client spells it. */
  spell(topic: string): string;
  /** The client cannot follow: its connection is to be closed. Called once at most. */
  onOverflow(reason: OverflowReason): void;
  /** Whether the client may still read a topic of which messages were queued while it was away. */
  mayRead(topic: string): boolean;
}

/**
 * `slow_subscriber`: messages at QoS 1 would be lost. `stuck_subscriber`: nothing of what was written was
 * taken for too long.
 */
export type OverflowReason = 'slow_subscriber' | 'stuck_subscriber';

/** Messages read from the stored queue at a time. */
const PAGE_MESSAGES = 64;
/** Bytes that are collected for one write. */
const WRITE_BYTES = 16_384;
/** Part of the bounds that telemetry may take; the rest is kept for alerts, commands and status. */
const TELEMETRY_SHARE = 0.8;
/** Part of the bounds below which there is room for messages that can be asked for later. */
const ROOM_SHARE = 0.25;
const PACKET_ID_MAX = 65_535;

/**
 * What one connection is still to be sent. Messages of one turn of the event loop go out in one write.
 *
 * - **QoS 0**: waits in memory while the connection is full; beyond the bounds it is dropped.
 * - **QoS 1, clean session**: waits in memory while the connection is full or as many as `inFlightMax`
 *   are without PUBACK; beyond the bounds the owner is told to close.
 * - **QoS 1, persistent session**: waits in the session store, from which it is read as there is room, in
 *   order; what an earlier connection sent comes first, as a duplicate under its old packet identifier
 *   [MQTT-4.4.0-1, MQTT-4.6.0-6].
 *
 * Messages of one QoS are sent in the order in which they came. Nothing is sent before {@link start}.
 */
export class Outbox implements DispatchedOutbox {
  readonly #dispatch: Dispatch;
  readonly #owner: OutboxOwner;
  /** Of a persistent session; null for a clean one. */
  readonly #storedId: string | null;
  #qos0: MessageQueue | null = null;
  #qos1: MessageQueue | null = null;
  /** Sequence in the stored queue (0: of none) by packet identifier. */
  #inFlight: Map<number, number> | null = null;
  #lastPacketId = 0;
  /** How far the stored queue was read, and whether there may be more. */
  #sentSequence = 0;
  #hasStored: boolean;
  /** Whether the stored queue holds what came before this connection. */
  #isCatchingUp = true;
  #frames: Buffer[] | null = null;
  #frameBytes = 0;
  #isBlocked = true;
  #isScheduled = false;
  #isClosed = false;
  /** Bytes unsent when the connection was last seen to take some, and when that was. */
  #blockedBytes = 0;
  #blockedMs = 0;
  #onRoom: (() => void) | null = null;

  constructor(dispatch: Dispatch, owner: OutboxOwner, storedId: string | null) {
    this.#dispatch = dispatch;
    this.#owner = owner;
    this.#storedId = storedId;
    this.#hasStored = storedId !== null;
  }

  /** True once {@link close} was called. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Messages that wait in memory. */
  get waitingMessages(): number {
    return (this.#qos0?.length ?? 0) + (this.#qos1?.length ?? 0);
  }

  /** Messages at QoS 1 that wait for PUBACK. */
  get inFlightMessages(): number {
    return this.#inFlight?.size ?? 0;
  }

  /** Begins to send; CONNACK must have been written. */
  start(): void {
    if (this.#isClosed) return;
    this.#isBlocked = false;
    this.flush();
  }

  /**
   * Sends a message at this QoS, or lets it wait.
   * @returns false when it was dropped.
   */
  offer(message: OutgoingMessage, qos: 0 | 1): boolean {
    if (this.#isClosed) return false;
    if (qos === 0) {
      if (!this.#isBlocked) this.#send(message, 0, false);
      else if (this.#hasPlace(message)) this.#wait((this.#qos0 ??= new MessageQueue()), message);
      else return this.#drop();
      return true;
    }
    if (this.#storedId !== null) {
      void this.#dispatch.enqueue([this.#storedId], message);
      this.wake();
    } else if (!this.#isBlocked && this.#qos1 === null && this.#hasWindow()) {
      this.#send(message, this.#nextPacketId(0), false);
    } else if (this.#hasPlace(message)) {
      this.#wait((this.#qos1 ??= new MessageQueue()), message);
    } else {
      this.#overflow('slow_subscriber');
      return false;
    }
    return true;
  }

  /** Something was put into the stored queue. */
  wake(): void {
    this.#hasStored = true;
    this.#schedule();
  }

  /** The client acknowledged a message [MQTT-4.3.2-1]; an identifier that is not in use is no matter. */
  acknowledge(packetId: number): void {
    const sequence = this.#inFlight?.get(packetId);
    if (sequence === undefined) return;
    this.#inFlight?.delete(packetId);
    if (this.#inFlight?.size === 0) this.#inFlight = null;
    this.#dispatch.inFlightMessages -= 1;
    if (this.#storedId !== null) this.#dispatch.store.removeQueued(this.#storedId, sequence);
    if (this.#qos1 !== null || this.#hasStored) this.#schedule();
  }

  /** The connection takes more again. */
  drained(): void {
    if (this.#isClosed || !this.#isBlocked) return;
    this.#isBlocked = false;
    this.#dispatch.unwatch(this);
    this.flush();
  }

  /** Writes an answer to the client behind everything that was sent before it. */
  answer(bytes: Buffer): void {
    if (this.#isClosed) return;
    this.#writeFrames();
    this.#deliver(bytes);
  }

  /** Whether messages that can be asked for later should be offered now; null: yes. */
  whenRoom(): Promise<void> | null {
    if (this.#isClosed || this.#hasRoom()) return null;
    return new Promise((resolve) => {
      this.#onRoom = resolve;
    });
  }

  flush(): void {
    this.#isScheduled = false;
    if (this.#isClosed) return;
    this.#sendStored();
    while (!this.#isBlocked && this.#qos1 !== null && this.#hasWindow()) {
      this.#send(this.#take(this.#qos1), this.#nextPacketId(0), false);
      if (this.#qos1?.length === 0) this.#qos1 = null;
    }
    while (!this.#isBlocked && this.#qos0 !== null) {
      this.#send(this.#take(this.#qos0), 0, false);
      if (this.#qos0?.length === 0) this.#qos0 = null;
    }
    this.#writeFrames();
    if (this.#onRoom !== null && this.#hasRoom()) this.#resolveRoom();
  }

  checkStuck(nowMs: number): void {
    const unsentBytes = this.#owner.link.unsentBytes;
    if (unsentBytes < this.#blockedBytes) {
      this.#blockedBytes = unsentBytes;
      this.#blockedMs = nowMs;
    } else if (nowMs - this.#blockedMs > this.#dispatch.limits.stuckMs) {
      this.#overflow('stuck_subscriber');
    }
  }

  /** Ends it; what waits in memory is gone. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#isBlocked = true;
    const dispatch = this.#dispatch;
    dispatch.unwatch(this);
    dispatch.waitingMessages -= this.waitingMessages;
    dispatch.waitingBytes -= this.#waitingBytes;
    dispatch.inFlightMessages -= this.inFlightMessages;
    this.#qos0 = this.#qos1 = this.#inFlight = this.#frames = null;
    this.#resolveRoom();
  }

  get #waitingBytes(): number {
    return (this.#qos0?.bytes ?? 0) + (this.#qos1?.bytes ?? 0);
  }

  #schedule(): void {
    if (this.#isScheduled || this.#isClosed) return;
    this.#isScheduled = true;
    this.#dispatch.schedule(this);
  }

  #hasWindow(): boolean {
    return (this.#inFlight?.size ?? 0) < this.#dispatch.limits.inFlightMax;
  }

  /** [MQTT-2.3.1-4] */
  #nextPacketId(sequence: number): number {
    const inFlight = (this.#inFlight ??= new Map());
    let packetId = this.#lastPacketId;
    do packetId = packetId === PACKET_ID_MAX ? 1 : packetId + 1;
    while (inFlight.has(packetId));
    this.#lastPacketId = packetId;
    inFlight.set(packetId, sequence);
    this.#dispatch.inFlightMessages += 1;
    return packetId;
  }

  #sendStored(): void {
    const storedId = this.#storedId;
    if (storedId === null) return;
    const { store, limits } = this.#dispatch;
    while (this.#hasStored && !this.#isBlocked) {
      const room = Math.min(limits.inFlightMax - this.inFlightMessages, PAGE_MESSAGES);
      if (room <= 0) return;
      const page = store.queued(storedId, this.#sentSequence, room);
      for (const message of page) {
        if (this.#isBlocked) return;
        this.#sentSequence = message.sequence;
        this.#sendQueued(storedId, message);
      }
      if (page.length === room) continue;
      this.#hasStored = false;
      this.#isCatchingUp = false;
    }
  }

  #sendQueued(storedId: string, message: QueuedMessage): void {
    const { store, metrics } = this.#dispatch;
    const { sequence, packetId: oldId } = message;
    if (this.#isCatchingUp && !this.#owner.mayRead(message.topic)) {
      metrics.dropped.not_granted += 1;
      store.removeQueued(storedId, sequence);
      return;
    }
    const inFlight = (this.#inFlight ??= new Map());
    if (oldId > 0 && !inFlight.has(oldId)) {
      inFlight.set(oldId, sequence);
      this.#dispatch.inFlightMessages += 1;
      this.#send(message, oldId, true);
      return;
    }
    const packetId = this.#nextPacketId(sequence);
    store.markSent(storedId, sequence, packetId);
    this.#send(message, packetId, oldId > 0);
  }

  /** @param packetId 0: at QoS 0. */
  #send(message: OutgoingMessage, packetId: number, isDup: boolean): void {
    const { encoder, metrics } = this.#dispatch;
    const topic = this.#owner.spell(message.topic);
    if (packetId === 0) {
      metrics.sentQos0 += 1;
      this.#append(encoder.encode(message, topic));
    } else {
      metrics.sentQos1 += 1;
      this.#append(encoder.encodeNumbered(message, topic, packetId, isDup));
    }
    if (message.payload.length >= LARGE_PAYLOAD_BYTES) this.#append(message.payload);
  }

  #append(frame: Buffer): void {
    if (this.#frames === null) this.#frames = [frame];
    else this.#frames.push(frame);
    this.#frameBytes += frame.length;
    if (this.#frameBytes >= WRITE_BYTES) this.#writeFrames();
    else this.#schedule();
  }

  #writeFrames(): void {
    const frames = this.#frames;
    if (frames === null) return;
    const bytes = this.#frameBytes;
    this.#frames = null;
    this.#frameBytes = 0;
    if (frames.length === 1) this.#deliver(frames[0] as Buffer);
    else if (bytes < 2 * WRITE_BYTES) this.#deliver(Buffer.concat(frames, bytes));
    else for (const frame of frames) this.#deliver(frame);
  }

  #deliver(bytes: Buffer): void {
    const { link } = this.#owner;
    if (link.deliver(bytes) || this.#isBlocked) return;
    this.#isBlocked = true;
    this.#blockedBytes = link.unsentBytes;
    this.#blockedMs = performance.now();
    this.#dispatch.watch(this);
  }

  /** Whether a message may wait in memory. */
  #hasPlace(message: OutgoingMessage): boolean {
    const bytes = messageBytes(message);
    if (this.#fits(bytes, TELEMETRY_SHARE)) return true;
    return this.#fits(bytes, 1) && !this.#dispatch.isTelemetry(message.topic);
  }

  #hasRoom(): boolean {
    const { queueMessagesMax, queueBytesMax } = this.#dispatch.limits;
    return (
      !this.#hasStored &&
      !this.#isBlocked &&
      this.waitingMessages < queueMessagesMax * ROOM_SHARE &&
      this.#waitingBytes < queueBytesMax * ROOM_SHARE
    );
  }

  #fits(bytes: number, share: number): boolean {
    const { limits, waitingBytes } = this.#dispatch;
    return (
      this.waitingMessages < limits.queueMessagesMax * share &&
      this.#waitingBytes + bytes <= limits.queueBytesMax * share &&
      waitingBytes + bytes <= limits.queuesBytesMax * share
    );
  }

  #wait(queue: MessageQueue, message: OutgoingMessage): void {
    queue.push(message);
    this.#dispatch.waitingMessages += 1;
    this.#dispatch.waitingBytes += messageBytes(message);
  }

  #take(queue: MessageQueue): OutgoingMessage {
    const message = queue.shift();
    this.#dispatch.waitingMessages -= 1;
    this.#dispatch.waitingBytes -= messageBytes(message);
    return message;
  }

  #drop(): false {
    this.#dispatch.metrics.dropped.queue_full += 1;
    return false;
  }

  #overflow(reason: OverflowReason): void {
    this.close();
    this.#owner.onOverflow(reason);
  }

  #resolveRoom(): void {
    this.#onRoom?.();
    this.#onRoom = null;
  }
}

// HOT PATH: once per packet; see bench/RESULTS.md
import { Duplex } from 'node:stream';
import type { Intake } from './access.ts';
import { Answers, type PendingPuback } from './answers.ts';
import { frameFault, hasOtherLevel, PACKET } from './frame-rules.ts';
import {
  readSubscribe,
  readUnsubscribe,
  type SubscribePacket,
  type UnsubscribePacket,
} from './subscribe-frame.ts';

/** Largest CONNECT, in bytes behind the fixed header: one with key, will and user name is below 1 KiB. */
const CONNECT_BYTES_MAX = 4096;
/** Publications of one connection that may be unsettled; beyond it its socket is not read. */
const UNSETTLED_MAX = 512;
const DUP_FLAG = 0x08;
const PINGRESP = Buffer.from([0xd0, 0]);
/** "Unacceptable protocol version" [MQTT-3.1.2-2]. */
const CONNACK_LEVEL = Buffer.from([0x20, 2, 0, 1]);

/** Where packets of an admitted client go, past the engine. */
export interface PacketSink {
  /** Verdict on a topic; null for one that no client may send. Asked once for a run of one topic. */
  authorize(topic: string): Intake | null;
  /**
   * Takes a publication. It calls `acknowledge` once it is stored.
   * @returns false when it has to wait before it is even queued: reading rests until
   * {@link Framer.goOn}.
   */
  take(intake: Intake, publication: DirectPublication): boolean;
  /** Reading rests until the promise resolves; it rejects never. */
  subscribe(packet: SubscribePacket): Promise<void>;
  unsubscribe(packet: UnsubscribePacket): Promise<void>;
  /** The client acknowledged a message that it was sent. */
  acknowledged(packetId: number): void;
  /** The socket takes more again after {@link Framer.deliver} said no. */
  drained(): void;
}

/** A PUBLISH at QoS 0 or 1 as it came. */
export interface DirectPublication {
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: 0 | 1;
  readonly retain: boolean;
  /** The message is stored: acknowledge it. */
  readonly acknowledge: () => void;
}

/** What the framer tells its owner. */
export interface FramerOwner {
  /** The client broke the protocol or a bound; the connection is being destroyed. */
  onViolation(reason: string, code: 'protocol_violation' | 'packet_too_large'): void;
}

/**
 * Cuts the byte stream of a client into MQTT packets, between its socket and the engine. Every packet is
 * checked before the engine sees a byte of it. After {@link admit} PINGREQ is answered here, and PUBLISH
 * at QoS 0 and 1, SUBSCRIBE, UNSUBSCRIBE and PUBACK go to the {@link PacketSink}. Every other packet
 * goes on to the engine untouched: CONNECT, DISCONNECT and the packets of QoS 2.
 *
 * Reading rests, so that TCP holds the client back: from CONNECT until {@link admit}; while the engine
 * is full; while a publication waits before the queue; while too many are unsettled; while a SUBSCRIBE
 * is under way; and while the client does not read what it is answered.
 */
export class Framer extends Duplex {
  readonly #socket: Duplex;
  readonly #packetBytesMax: number;
  readonly #owner: FramerOwner;
  #parts: Buffer[] = [];
  #partsBytes = 0;
  /** Bytes that the packet at the start of the parts takes, as far as is known. */
  #neededBytes = 0;
  #isConnectSeen = false;
  #isAdmitted = false;
  #sink: PacketSink | null = null;
  #isEngineFull = false;
  #isWaiting = false;
  #isSubscribing = false;
  #isHalted = false;
  #isPaused = false;
  #isEnded = false;
  #isEndSent = false;
  #unsettled = 0;
  #lastTopicBytes: Buffer = Buffer.alloc(0);
  #lastTopic = '';
  #lastIntake: Intake | null = null;
  readonly #answers: Answers;
  /** When bytes last came, in ms of the monotonic clock. */
  lastSeenMs = performance.now();

  constructor(socket: Duplex, packetBytesMax: number, owner: FramerOwner) {
    super({ allowHalfOpen: false });
    this.#socket = socket;
    this.#packetBytesMax = packetBytesMax;
    this.#owner = owner;
    this.#answers = new Answers(socket);
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('end', () => {
      this.#isEnded = true;
      this.#endWhenDone();
    });
    socket.on('error', (error) => this.destroy(error));
    // A client that left in order has its last packets looked at first.
    socket.on('close', () => {
      if (!this.#isEnded || this.#partsBytes === 0) this.destroy();
    });
    socket.on('drain', () => {
      this.#sink?.drained();
      this.#goOn();
    });
  }

  /** True while nothing is read from the client, who may then be silent for no fault of its own. */
  get isResting(): boolean {
    return (
      (this.#isConnectSeen && !this.#isAdmitted) ||
      this.#isEngineFull ||
      this.#isWaiting ||
      this.#isSubscribing ||
      this.#answers.isUnread ||
      this.#isHalted ||
      this.#unsettled >= UNSETTLED_MAX
    );
  }

  /** The oldest PUBLISH at QoS 1 that waits for its PUBACK. */
  get oldestPuback(): PendingPuback | null {
    return this.#answers.oldest;
  }

  /** Bytes that the socket has taken and not sent yet. */
  get unsentBytes(): number {
    return this.#socket.writableLength;
  }

  /** Lets the client go on after CONNACK. Without a sink every packet goes to the engine. */
  admit(sink: PacketSink | null): void {
    this.#isAdmitted = true;
    this.#sink = sink;
    this.#goOn();
  }

  /** Writes packets to the client. @returns false when there should be no more before `drained`. */
  deliver(bytes: Buffer): boolean {
    return this.destroyed || this.#answers.write(bytes);
  }

  /** Tells that the publication which had to wait has gone on. */
  goOn(): void {
    this.#isWaiting = false;
    this.#goOn();
  }

  /** Reads nothing more, for good; what was taken is still acknowledged. */
  halt(): void {
    this.#isHalted = true;
    this.#pause();
  }

  override _read(): void {
    if (!this.#isEngineFull) return;
    this.#isEngineFull = false;
    this.#goOn();
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    this.#send(chunk, done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: (error?: Error | null) => void): void {
    this.#send(Buffer.concat(chunks.map(({ chunk }) => chunk)), done);
  }

  override _final(done: () => void): void {
    this.#socket.end();
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#parts = [];
    this.#sink = null;
    this.#socket.destroy();
    done(error);
  }

  /** The engine's own back-pressure: it waits until the socket has taken what it wrote. */
  #send(bytes: Buffer, done: (error?: Error | null) => void): void {
    if (this.#socket.write(bytes)) done();
    else this.#socket.once('drain', () => done());
  }

  #receive(chunk: Buffer): void {
    this.lastSeenMs = performance.now();
    this.#parts.push(chunk);
    this.#partsBytes += chunk.length;
    if (this.isResting) this.#pause();
    else if (this.#partsBytes >= this.#neededBytes) this.#cut();
  }

  #goOn(): void {
    if (this.destroyed || this.isResting) return;
    if (this.#partsBytes > 0 && this.#partsBytes >= this.#neededBytes) this.#cut();
    if (this.isResting || this.destroyed) return;
    this.#isPaused = false;
    this.#socket.resume();
    this.#endWhenDone();
  }

  /** The end of the stream comes to the engine behind every packet that came before it. */
  #endWhenDone(): void {
    if (!this.#isEnded || this.#isEndSent || (this.isResting && this.#partsBytes > 0)) return;
    this.#isEndSent = true;
    this.#partsBytes = 0;
    this.push(null);
  }

  #pause(): void {
    this.#isPaused = true;
    this.#socket.pause();
  }

  /** Hands out every whole packet that has come, until reading has to rest. */
  #cut(): void {
    const bytes =
      this.#parts.length === 1 ? (this.#parts[0] as Buffer) : Buffer.concat(this.#parts);
    let at = 0;
    this.#neededBytes = 0;
    while (at < bytes.length && !this.isResting && !this.destroyed) {
      const next = this.#takePacket(bytes, at);
      if (next < 0) break;
      at = next;
    }
    if (this.destroyed) return;
    this.#parts = at < bytes.length ? [bytes.subarray(at)] : [];
    this.#partsBytes = bytes.length - at;
    if (this.isResting) this.#pause();
  }

  /** @returns where the next packet starts, or -1 when this one is not whole yet or must not be. */
  #takePacket(bytes: Buffer, at: number): number {
    const first = bytes[at] as number;
    const isConnect = first >> 4 === PACKET.connect;
    if (isConnect === this.#isConnectSeen) {
      const order = isConnect ? 'second CONNECT [MQTT-3.1.0-2]' : 'no CONNECT [MQTT-3.1.0-1]';
      return this.#violate(order);
    }
    let length = 0;
    let start = at + 1;
    for (let shift = 0; ; shift += 7) {
      if (start >= bytes.length) return this.#await(bytes.length - at + 1);
      const byte = bytes[start] as number;
      start += 1;
      length += (byte & 0x7f) << shift;
      if (byte < 0x80) break;
      if (shift === 21) return this.#violate('remaining length of more than 4 bytes [MQTT-2.2.3]');
    }
    if (length > (this.#isAdmitted ? this.#packetBytesMax : CONNECT_BYTES_MAX)) {
      return this.#violate(`packet of ${length} bytes`, 'packet_too_large');
    }
    const end = start + length;
    if (end > bytes.length) return this.#await(end - at);
    if (first === 0x10 && hasOtherLevel(bytes, start, end)) return this.#refuseLevel();
    const fault = frameFault(first, bytes, start, end);
    if (fault !== null) return this.#violate(fault);
    this.#dispatch(first, bytes, at, start, end);
    return end;
  }

  #dispatch(first: number, bytes: Buffer, at: number, start: number, end: number): void {
    const type = first >> 4;
    if (type === PACKET.connect) this.#isConnectSeen = true;
    // [MQTT-3.14.4-2] Nothing behind it is read.
    if (type === PACKET.disconnect) this.halt();
    if (type === PACKET.pingreq) {
      this.#answers.write(PINGRESP);
      return;
    }
    const sink = this.#sink;
    if (sink !== null && type === PACKET.publish && (first & 0x04) === 0) {
      this.#publish(sink, first, bytes, start, end);
    } else if (sink !== null && type === PACKET.puback) {
      sink.acknowledged(bytes.readUInt16BE(start));
    } else if (sink !== null && type === PACKET.subscribe) {
      this.#restUntil(sink.subscribe(readSubscribe(bytes, start, end)));
    } else if (sink !== null && type === PACKET.unsubscribe) {
      this.#restUntil(sink.unsubscribe(readUnsubscribe(bytes, start, end)));
    } else if (!this.push(bytes.subarray(at, end))) {
      this.#isEngineFull = true;
    }
  }

  #restUntil(done: Promise<void>): void {
    this.#isSubscribing = true;
    void done.then(() => {
      this.#isSubscribing = false;
      this.#goOn();
    });
  }

  #publish(sink: PacketSink, first: number, bytes: Buffer, start: number, end: number): void {
    const qos = ((first >> 1) & 1) as 0 | 1;
    const topicEnd = start + 2 + bytes.readUInt16BE(start);
    const intake = this.#intakeOf(sink, bytes, start + 2, topicEnd);
    if (intake === null) {
      this.#violate('topic name [MQTT-1.5.3-2]');
      return;
    }
    const packetId = qos === 0 ? 0 : bytes.readUInt16BE(topicEnd);
    // Sent again before its PUBACK, as esp-mqtt does every second: the PUBACK that comes is for both.
    if ((first & DUP_FLAG) !== 0 && this.#answers.isInFlight(packetId)) return;
    const puback = qos === 1 ? this.#answers.expect(packetId) : null;
    this.#unsettled += 1;
    const isQueued = sink.take(intake, {
      topic: this.#lastTopic,
      payload: bytes.subarray(topicEnd + (qos === 0 ? 0 : 2), end),
      qos,
      retain: (first & 1) !== 0,
      acknowledge: () => this.#acknowledge(puback),
    });
    if (!isQueued) this.#isWaiting = true;
  }

  /** A device publishes on few topics, mostly one: its name is compared before it is decoded. */
  #intakeOf(sink: PacketSink, bytes: Buffer, start: number, end: number): Intake | null {
    const last = this.#lastTopicBytes;
    const isSame = last.length === end - start && last.compare(bytes, start, end) === 0;
    if (isSame && this.#lastIntake !== null) return this.#lastIntake;
    this.#lastTopicBytes = Buffer.from(bytes.subarray(start, end));
    this.#lastTopic = this.#lastTopicBytes.toString('utf8');
    this.#lastIntake = sink.authorize(this.#lastTopic);
    return this.#lastIntake;
  }

  #acknowledge(puback: PendingPuback | null): void {
    this.#settle(puback === null ? 1 : this.#answers.puback(puback));
  }

  #settle(count: number): void {
    const before = this.#unsettled;
    this.#unsettled -= count;
    const isHalf = before > UNSETTLED_MAX / 2 && this.#unsettled <= UNSETTLED_MAX / 2;
    const isLow = isHalf || this.#unsettled === 0;
    if (isLow && this.#isPaused) queueMicrotask(() => this.#goOn());
  }

  #await(neededBytes: number): -1 {
    this.#neededBytes = neededBytes;
    return -1;
  }

  /** The answer leaves before the connection ends. */
  #refuseLevel(): -1 {
    this.#owner.onViolation('protocol level [MQTT-3.1.2-2]', 'protocol_violation');
    this.halt();
    this.#socket.end(CONNACK_LEVEL, () => this.destroy());
    return -1;
  }

  #violate(
    reason: string,
    code: 'protocol_violation' | 'packet_too_large' = 'protocol_violation',
  ): -1 {
    this.#owner.onViolation(reason, code);
    this.destroy();
    return -1;
  }
}

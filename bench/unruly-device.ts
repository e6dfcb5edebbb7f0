import { connect, type Socket } from 'node:net';
import mqttPacket, { type Packet } from 'mqtt-packet';
import { FIRST_NUMBER } from './publish-ring.ts';
import type { Random } from './random.ts';

/**
 * How a message can be told from others when it comes twice: by `ts`, by `seq` within a boot, by both.
 */
export type UnrulyForm = 'time' | 'sequence' | 'both';

/**
 * What a device does beside publishing: nothing; send each message again, with DUP and without; send
 * messages in another order than they were made; connect again and send stored ones again.
 */
export type Habit = 'none' | 'duplicate' | 'reorder' | 'replay';

/** A message of an unruly device. */
export interface UnrulyMessage {
  readonly number: number;
  /** Its `ts`; null when it has none. */
  readonly timeMs: number | null;
  readonly payload: string;
}

/** Where an unruly device connects to, and how it publishes. */
export interface UnrulyOptions {
  readonly device: string;
  readonly key: string;
  readonly form: UnrulyForm;
  readonly qos: 1 | 2;
  readonly mqttUrl: string;
  readonly random: Random;
  /** Called for each message that is acknowledged, each time. */
  readonly acknowledged: (device: string, message: UnrulyMessage) => void;
}

const WINDOW = 20;
/** Kept in memory to be sent again. */
const REMEMBERED = 40;
/**
 * Without `ts` a copy is known by its `seq` alone, if that is not more than 63 behind the highest: so far
 * behind may a device begin to send one again while its window of new ones goes on.
 */
const BEHIND_MAX = 40;
const REORDERED_TOGETHER = 5;
const RECONNECT_MS = 100;
const REPLAY_EVERY_MS = 700;
/** Of connects of a device that counts: after a boot it counts from 1 again. */
const BOOTS_SHARE = 0.2;
/** Far from being used again while its first PUBACK is still on its way. */
const PACKET_IDS = 60_000;

/** A device that does what devices do at their worst, and remembers what was acknowledged. */
export class UnrulyDevice {
  habit: Habit = 'none';
  readonly #options: UnrulyOptions;
  readonly #inFlight = new Map<number, UnrulyMessage>();
  #remembered: UnrulyMessage[] = [];
  #waiting: UnrulyMessage[] = [];
  #socket: Socket | null = null;
  #isOpen = false;
  #isStopped = false;
  #isDraining = false;
  #number = FIRST_NUMBER;
  #lastTimeMs = 0;
  #boot = 1;
  #bootNumber = FIRST_NUMBER;
  #packetId = 0;
  #replayedAtMs = 0;

  constructor(options: UnrulyOptions) {
    this.#options = options;
  }

  /** Connects, and again whenever the connection ends, until {@link stop}. */
  start(): void {
    const { hostname, port } = new URL(this.#options.mqttUrl);
    const socket = connect({ host: hostname, port: Number(port), noDelay: true });
    this.#socket = socket;
    const parser = mqttPacket.parser({ protocolVersion: 4 });
    parser.on('packet', (packet) => this.#receive(packet));
    socket.on('data', (bytes) => void parser.parse(bytes));
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#isOpen = false;
      if (!this.#isStopped) setTimeout(() => this.start(), RECONNECT_MS);
    });
    this.#send({
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion: 4,
      clientId: this.#options.device,
      clean: true,
      keepalive: 60,
      username: 'device',
      password: Buffer.from(this.#options.key),
    });
  }

  /** Publishes as many new messages as fit, in the way of its habit. */
  publish(count: number): void {
    if (this.habit === 'replay') this.#replayAtTimes();
    if (!this.#isOpen || this.#isDraining) return;
    for (let index = 0; index < count && this.#inFlight.size < WINDOW; index += 1) {
      this.#waiting.push(this.#make());
      if (this.habit !== 'reorder') this.#publishWaiting();
      else if (this.#waiting.length >= REORDERED_TOGETHER) this.#publishWaiting();
    }
  }

  /** Makes nothing new. @returns how many messages are not acknowledged yet. */
  drain(): number {
    this.#isDraining = true;
    if (this.#isOpen) this.#publishWaiting();
    return this.#inFlight.size + this.#waiting.length;
  }

  stop(): void {
    this.#isStopped = true;
    this.#socket?.destroy();
  }

  #make(): UnrulyMessage {
    const { form } = this.#options;
    const number = this.#number;
    this.#number += 1;
    this.#lastTimeMs = Math.max(Date.now(), this.#lastTimeMs + 1);
    const timeMs = form === 'sequence' ? null : this.#lastTimeMs;
    const members = [
      ...(timeMs === null ? [] : [`"ts":${timeMs}`]),
      ...(form === 'time' ? [] : [`"seq":${number - this.#bootNumber + 1}`]),
      `"n":${number}`,
    ];
    return { number, timeMs, payload: `{${members.join()}}` };
  }

  #publishWaiting(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    while (waiting.length > 0) {
      const at = Math.floor(this.#options.random.between(0, waiting.length));
      const [message] = waiting.splice(at, 1);
      if (message === undefined) continue;
      const packetId = this.#publishNew(message);
      if (this.habit === 'duplicate') this.#publishAs(packetId, message, true);
    }
  }

  #publishNew(message: UnrulyMessage): number {
    do this.#packetId = (this.#packetId % PACKET_IDS) + 1;
    while (this.#inFlight.has(this.#packetId));
    this.#inFlight.set(this.#packetId, message);
    this.#publishAs(this.#packetId, message, false);
    return this.#packetId;
  }

  #publishAs(messageId: number, { payload }: UnrulyMessage, dup: boolean): void {
    const { qos } = this.#options;
    this.#send({
      cmd: 'publish',
      topic: 'v1/me/data',
      payload,
      qos,
      messageId,
      dup,
      retain: false,
    });
  }

  #receive(packet: Packet): void {
    if (packet.cmd === 'connack' && packet.returnCode === 0) this.#opened();
    const messageId = packet.messageId ?? 0;
    if (packet.cmd === 'puback') this.#acknowledged(messageId);
    if (packet.cmd !== 'pubrec') return;
    this.#acknowledged(messageId);
    this.#send({ cmd: 'pubrel', messageId });
  }

  #opened(): void {
    this.#isOpen = true;
    const { form, random } = this.#options;
    if (form !== 'time') {
      if (random.between(0, 1) < BOOTS_SHARE && !this.#isDraining) this.#reboot();
      const payload = `{"boot":${this.#boot}}`;
      const hello = { topic: 'v1/me/hello', payload, qos: 0, dup: false, retain: false } as const;
      this.#send({ cmd: 'publish', ...hello });
    }
    for (const [packetId, message] of this.#inFlight) this.#publishAs(packetId, message, true);
    if (this.habit !== 'replay') return;
    for (const message of this.#remembered)
      if (this.#maySendAgain(message)) this.#publishNew(message);
  }

  #maySendAgain({ timeMs, number }: UnrulyMessage): boolean {
    return timeMs !== null || number > this.#number - BEHIND_MAX;
  }

  /** What it had in memory is gone: nobody was told that it is stored. */
  #reboot(): void {
    this.#boot += 1;
    this.#bootNumber = this.#number;
    this.#inFlight.clear();
    this.#waiting = [];
    this.#remembered = [];
  }

  #acknowledged(packetId: number): void {
    const message = this.#inFlight.get(packetId);
    if (message === undefined) return;
    this.#inFlight.delete(packetId);
    this.#options.acknowledged(this.#options.device, message);
    this.#remembered.push(message);
    if (this.#remembered.length > REMEMBERED) this.#remembered.shift();
    const isSentAgain = this.habit === 'duplicate' && this.#options.random.between(0, 1) < 0.5;
    if (isSentAgain && !this.#isDraining && this.#maySendAgain(message)) this.#publishNew(message);
  }

  #replayAtTimes(): void {
    const nowMs = performance.now();
    if (nowMs - this.#replayedAtMs < REPLAY_EVERY_MS) return;
    this.#replayedAtMs = nowMs;
    this.#socket?.destroy();
  }

  #send(packet: Packet): void {
    this.#socket?.write(mqttPacket.generate(packet));
  }
}

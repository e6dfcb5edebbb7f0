import { connect, type MqttClient } from 'mqtt';
import { reasonOf } from '../errors.ts';
import type { BoardAccess } from './fleet-keys.ts';
import { sensorReading, type SensorReading } from './sensor-curves.ts';

/** What happens to the messages of a board. The fleet counts it. */
export interface BoardObserver {
  sent(): void;
  /** @param latencyMs from the first time the message was handed to the connection or its queue */
  acknowledged(board: number, timeMs: number, latencyMs: number): void;
  resent(): void;
  /** A message was not made because too many wait for their acknowledgement. */
  skipped(): void;
  connected(): void;
  /** @param wasConnected false: the connection was refused or could not be opened */
  disconnected(wasConnected: boolean, reason: string | null): void;
}

interface WaitingMessage {
  payload: string;
  sinceMs: number;
  isSent: boolean;
}

const TOPIC = 'v1/me/data';
/** What a board keeps in memory while it is offline; more would not fit an ESP32 either. */
const WAITING_MAX = 1000;
const IN_FLIGHT_MAX = 10;
const BACKOFF_MS_MAX = 5000;

/**
 * One simulated board on one real MQTT connection. It keeps each message until its PUBACK; after a lost
 * connection it connects again and sends what is unacknowledged once more, with the same time.
 */
export class SimulatedBoard {
  readonly #access: BoardAccess;
  readonly #mqttUrl: string;
  readonly #observer: BoardObserver;
  readonly #readingOf: (board: number, timeMs: number) => SensorReading;
  /** Unacknowledged messages by their time, oldest first. */
  readonly #waiting = new Map<number, WaitingMessage>();
  #toSend: number[] = [];
  #inFlight = 0;
  #client: MqttClient | null = null;
  #isConnected = false;
  #isClosed = false;
  #failedConnects = 0;
  #reconnectTimer: NodeJS.Timeout | undefined;
  #publishTimer: NodeJS.Timeout | undefined;
  #lastTimeMs = 0;
  #seq = 0;

  constructor(
    access: BoardAccess,
    mqttUrl: string,
    observer: BoardObserver,
    readingOf: (board: number, timeMs: number) => SensorReading = sensorReading,
  ) {
    this.#access = access;
    this.#mqttUrl = mqttUrl;
    this.#observer = observer;
    this.#readingOf = readingOf;
  }

  get waitingCount(): number {
    return this.#waiting.size;
  }

  /** Opens the connection, and goes on trying until {@link close}. */
  connect(): void {
    const client = connect(this.#mqttUrl, {
      username: 'device',
      password: this.#access.key,
      clientId: this.#access.device,
      protocolVersion: 4,
      clean: true,
      keepalive: 60,
      connectTimeout: 15_000,
      // This class connects again by itself: it alone knows what must be sent again.
      reconnectPeriod: 0,
    });
    this.#client = client;
    let reason: string | null = null;
    client.on('connect', () => this.#onConnect());
    client.on('error', (error) => {
      reason = reasonOf(error);
    });
    client.on('close', () => this.#onClose(client, reason));
  }

  /** Publishes one reading every `periodMs`, the first after `phaseMs`. */
  startPublishing(periodMs: number, phaseMs: number): void {
    let dueMs = performance.now() + phaseMs;
    const publishDue = (): void => {
      const nowMs = performance.now();
      // After a long stall (a laptop that slept) only the last second is made up for.
      dueMs = Math.max(dueMs, nowMs - 1000);
      for (; dueMs <= nowMs; dueMs += periodMs) this.#publish();
      this.#publishTimer = setTimeout(publishDue, dueMs - nowMs);
    };
    this.#publishTimer = setTimeout(publishDue, phaseMs);
  }

  /** Makes no new message; what waits is still sent and acknowledged. */
  stopPublishing(): void {
    clearTimeout(this.#publishTimer);
  }

  /** Ends the connection with DISCONNECT. What is unacknowledged by now stays so. */
  async close(): Promise<void> {
    this.stopPublishing();
    clearTimeout(this.#reconnectTimer);
    this.#isClosed = true;
    const client = this.#client;
    if (client === null) return;
    if (this.#inFlight > 0 || !this.#isConnected) await client.endAsync(true);
    else await client.endAsync();
  }

  #publish(): void {
    if (this.#waiting.size >= WAITING_MAX) {
      this.#observer.skipped();
      return;
    }
    const timeMs = Math.max(Date.now(), this.#lastTimeMs + 1);
    this.#lastTimeMs = timeMs;
    this.#seq += 1;
    const reading = this.#readingOf(this.#access.number, timeMs);
    const payload = JSON.stringify({ ts: timeMs, seq: this.#seq, ...reading });
    this.#waiting.set(timeMs, { payload, sinceMs: performance.now(), isSent: false });
    this.#toSend.push(timeMs);
    this.#observer.sent();
    this.#sendNext();
  }

  #sendNext(): void {
    while (this.#isConnected && this.#inFlight < IN_FLIGHT_MAX) {
      const timeMs = this.#toSend.shift();
      if (timeMs === undefined) return;
      const message = this.#waiting.get(timeMs);
      if (message !== undefined) this.#send(timeMs, message);
    }
  }

  #send(timeMs: number, message: WaitingMessage): void {
    const client = this.#client;
    if (client === null) return;
    if (message.isSent) this.#observer.resent();
    message.isSent = true;
    this.#inFlight += 1;
    client.publish(TOPIC, message.payload, { qos: 1 }, (error) => {
      // Without PUBACK it stays in #waiting, and the next connection sends it again.
      if (error !== null && error !== undefined) return;
      if (client === this.#client) this.#inFlight -= 1;
      if (this.#waiting.delete(timeMs)) {
        const latencyMs = performance.now() - message.sinceMs;
        this.#observer.acknowledged(this.#access.number, timeMs, latencyMs);
      }
      this.#sendNext();
    });
  }

  #onConnect(): void {
    this.#failedConnects = 0;
    this.#isConnected = true;
    this.#inFlight = 0;
    this.#toSend = [...this.#waiting.keys()];
    this.#observer.connected();
    this.#sendNext();
  }

  #onClose(client: MqttClient, reason: string | null): void {
    if (client !== this.#client) return;
    if (this.#isClosed) return;
    this.#observer.disconnected(this.#isConnected, reason);
    this.#isConnected = false;
    client.end(true);
    this.#failedConnects += 1;
    const longestMs = Math.min(BACKOFF_MS_MAX, 250 * 2 ** this.#failedConnects);
    this.#reconnectTimer = setTimeout(() => this.connect(), longestMs * (0.5 + Math.random() / 2));
  }
}

import { Socket } from 'node:net';
import { connect, type MqttClient } from 'mqtt';
import { reasonOf } from '../errors.ts';
import { keyIdOf, type BoardAccess } from './fleet-keys.ts';
import { SimulatedDownlink, type BoardHabits } from './simulated-downlink.ts';
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
  /** It ended the connection of its own accord, and will be back. */
  left(): void;
}

/** How one board differs from others. */
export interface BoardNature {
  /** What it measures; {@link sensorReading} when left out. */
  readonly readingOf?: ((board: number, timeMs: number) => SensorReading) | undefined;
  /** How it takes what comes down; left out: it neither greets nor listens. */
  readonly habits?: BoardHabits | undefined;
}

interface WaitingMessage {
  payload: string;
  sinceMs: number;
  isSent: boolean;
}

const TOPICS = 'v1/me/';
/** What a board keeps in memory while it is offline; more would not fit an ESP32 either. */
const WAITING_MAX = 1000;
const IN_FLIGHT_MAX = 10;
const BACKOFF_MS_MAX = 5000;
/** How long a boot takes, and what was just said has to go out before. */
const REBOOT_MS = 200;
/** A board that sleeps does so after this long at the latest. */
const AWAKE_MS_MAX = 10_000;

/**
 * One simulated board on one real MQTT connection. It keeps each message until its PUBACK; after a lost
 * connection it connects again and sends what is unacknowledged once more, with the same time.
 */
export class SimulatedBoard {
  readonly #access: BoardAccess;
  readonly #mqttUrl: string;
  readonly #observer: BoardObserver;
  readonly #readingOf: (board: number, timeMs: number) => SensorReading;
  readonly #downlink: SimulatedDownlink | null;
  readonly #sleepMs: number;
  /** Unacknowledged messages by their time, oldest first. */
  readonly #waiting = new Map<number, WaitingMessage>();
  #toSend: number[] = [];
  #inFlight = 0;
  #client: MqttClient | null = null;
  #isConnected = false;
  #isClosed = false;
  #isStopped = false;
  #failedConnects = 0;
  #reconnectTimer: NodeJS.Timeout | undefined;
  #publishTimer: NodeJS.Timeout | undefined;
  #leaveTimer: NodeJS.Timeout | undefined;
  /** How long it stays away when it has left of its own accord; null: it has not. */
  #awayMs: number | null = null;
  /** The key before the one in use, until the broker has taken that. */
  #formerKey: string | null = null;
  #lastTimeMs = 0;
  #seq = 0;

  constructor(
    access: BoardAccess,
    mqttUrl: string,
    observer: BoardObserver,
    { readingOf = sensorReading, habits }: BoardNature = {},
  ) {
    this.#access = access;
    this.#mqttUrl = mqttUrl;
    this.#observer = observer;
    this.#readingOf = readingOf;
    this.#sleepMs = (habits?.sleepS ?? 0) * 1000;
    this.#downlink = habits === undefined ? null : this.#newDownlink(habits);
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
      this.#fallBackToFormerKey(error);
    });
    client.on('message', (topic, payload) => {
      this.#downlink?.receive(topic.slice(`${TOPICS}in/`.length), payload);
      this.#sleepWhenDone();
    });
    client.on('close', () => this.#onClose(client, reason));
  }

  /** Publishes one reading every `periodMs`, the first after `phaseMs`; one that sleeps, one at each contact. */
  startPublishing(periodMs: number, phaseMs: number): void {
    // One that sleeps measures when it wakes.
    if (this.#sleepMs > 0) return;
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
    this.#isStopped = true;
    clearTimeout(this.#publishTimer);
  }

  /** Ends the connection with DISCONNECT. What is unacknowledged by now stays so. */
  async close(): Promise<void> {
    this.stopPublishing();
    clearTimeout(this.#reconnectTimer);
    clearTimeout(this.#leaveTimer);
    this.#downlink?.close();
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
    client.publish(`${TOPICS}data`, message.payload, { qos: 1 }, (error) => {
      // Without PUBACK it stays in #waiting, and the next connection sends it again.
      if (error !== null && error !== undefined) return;
      if (client === this.#client) this.#inFlight -= 1;
      if (this.#waiting.delete(timeMs)) {
        const latencyMs = performance.now() - message.sinceMs;
        this.#observer.acknowledged(this.#access.number, timeMs, latencyMs);
      }
      this.#sendNext();
      this.#sleepWhenDone();
    });
  }

  #newDownlink(habits: BoardHabits): SimulatedDownlink {
    return new SimulatedDownlink(
      {
        send: (channel, payload) => {
          // Without a connection it is lost, as on a board that has no place for it.
          if (!this.#isConnected) return;
          this.#client?.publish(TOPICS + channel, JSON.stringify(payload), { qos: 1 }, () =>
            this.#sleepWhenDone(),
          );
        },
        reboot: () => {
          clearTimeout(this.#leaveTimer);
          this.#leaveTimer = setTimeout(() => this.#leave(REBOOT_MS, true), REBOOT_MS);
        },
        changeKey: (key) => {
          this.#formerKey = this.#access.key;
          this.#takeKey(key);
          this.#leave(0);
        },
      },
      habits,
    );
  }

  #takeKey(key: string): void {
    (this.#access.formerKeyIds ??= []).push(this.#access.keyId);
    Object.assign(this.#access, { key, keyId: keyIdOf(key) });
  }

  #fallBackToFormerKey(error: Error): void {
    if (this.#formerKey === null || !('code' in error)) return;
    // CONNACK 4 and 5: the broker does not take the new key.
    if (error.code !== 4 && error.code !== 5) return;
    this.#takeKey(this.#formerKey);
    this.#formerKey = null;
  }

  #sleepWhenDone(): void {
    if (this.#sleepMs === 0 || !this.#isConnected || this.#waiting.size > 0) return;
    if (this.#downlink?.canSleep === true) this.#leave(this.#sleepMs);
  }

  /** @param isAbrupt without DISCONNECT, as a board does that boots */
  #leave(awayMs: number, isAbrupt = false): void {
    if (this.#awayMs !== null || this.#isClosed || this.#client === null) return;
    clearTimeout(this.#leaveTimer);
    this.#awayMs = awayMs;
    this.#client.end(isAbrupt);
  }

  #onConnect(): void {
    this.#failedConnects = 0;
    this.#isConnected = true;
    this.#inFlight = 0;
    this.#toSend = [...this.#waiting.keys()];
    this.#formerKey = null;
    const stream = this.#client?.stream;
    // Else an answer to a command waits 40 ms behind the PUBACK of that command.
    if (stream instanceof Socket) stream.setNoDelay(true);
    this.#observer.connected();
    if (this.#downlink !== null) {
      this.#client?.subscribe(`${TOPICS}in/+`, { qos: 1 });
      this.#downlink.greet();
    }
    if (this.#sleepMs > 0) {
      this.#leaveTimer = setTimeout(() => this.#leave(this.#sleepMs), AWAKE_MS_MAX);
      if (!this.#isStopped) this.#publish();
    }
    this.#sendNext();
  }

  #onClose(client: MqttClient, reason: string | null): void {
    if (client !== this.#client) return;
    if (this.#isClosed) return;
    const wasConnected = this.#isConnected;
    this.#isConnected = false;
    this.#client = null;
    clearTimeout(this.#leaveTimer);
    if (wasConnected && this.#awayMs !== null) {
      this.#observer.left();
      this.#reconnectTimer = setTimeout(() => this.connect(), this.#awayMs);
      this.#awayMs = null;
      return;
    }
    this.#awayMs = null;
    this.#observer.disconnected(wasConnected, reason);
    client.end(true);
    this.#failedConnects += 1;
    const longestMs = Math.min(BACKOFF_MS_MAX, 250 * 2 ** this.#failedConnects);
    this.#reconnectTimer = setTimeout(() => this.connect(), longestMs * (0.5 + Math.random() / 2));
  }
}

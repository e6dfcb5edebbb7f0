import { createWriteStream, type WriteStream } from 'node:fs';
import { createHistogram } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { ToolFailedError } from '../errors.ts';
import { GeneratorConnection, type ConnectionObserver } from './generator-connection.ts';
import { connectPacket, PublishRing, type PayloadKind } from './publish-ring.ts';

/** How the generator loads a broker. */
export interface LoadOptions {
  host: string;
  port: number;
  /** One device and key for each connection. */
  keys: readonly { device: string; key: string }[];
  /** Messages in flight on each connection. */
  window: number;
  payload: PayloadKind;
  /** Topic name of every message; `{device}` stands for the device of the connection. */
  topic: string;
  /** Messages a second in all; 0: no limit. */
  ratePerS: number;
  /** Open a lost connection again. Otherwise a lost one is a fault. */
  reconnects: boolean;
  /** File that takes a line `device ts number acknowledgedAtMs` for each PUBACK, or empty. */
  ackLog: string;
}

/** What was counted while it was measured. */
export interface Measurement {
  acknowledged: number;
  seconds: number;
  p50Ms: number;
  p99Ms: number;
  maxMs: number;
  /** CPU of the generator itself for each acknowledged message. */
  cpuUs: number;
}

/** What was counted from the first message to the last. */
export interface LoadTotal {
  acknowledgedTotal: number;
  /** In flight at the end: sent, perhaps stored, not acknowledged. */
  unacknowledged: number;
  connectionsLost: number;
}

const OPENING_MAX = 64;
const OPEN_TIMEOUT_MS = 60_000;
const RATE_TICK_MS = 10;
const ACK_LOG_CHUNK = 65_536;
/** One message in eight is timed: to record a time costs as much as all the rest of a PUBACK. */
const TIMED_EVERY = 8;

/** Runs the connections of the generator and counts. */
export class Load {
  readonly #options: LoadOptions;
  readonly #connections: readonly GeneratorConnection[];
  readonly #latency = createHistogram({ lowest: 1, highest: 3_600_000_000, figures: 3 });
  readonly #ackLog: WriteStream | null;
  #ackLines = '';
  #phase: 'opening' | 'sending' | 'draining' | 'closed' = 'opening';
  #readyCount = 0;
  #allowed = 0;
  #rateTimer: NodeJS.Timeout | undefined;
  #acknowledged = 0;
  #measuredFrom = { acknowledged: 0, timeMs: 0, cpu: process.cpuUsage() };
  #connectionsLost = 0;
  #fault: string | null = null;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#ackLog = options.ackLog === '' ? null : createWriteStream(options.ackLog);
    const observer = this.#observer();
    this.#connections = options.keys.map(({ device, key }, number) => {
      const connect = connectPacket(device, 'device', key);
      const target = { host: options.host, port: options.port, connectPacket: connect };
      const ring = new PublishRing(
        options.payload,
        options.window,
        options.topic.replace('{device}', device),
      );
      return new GeneratorConnection(number, ring, target, observer);
    });
  }

  /** Messages acknowledged since the start. */
  get acknowledged(): number {
    return this.#acknowledged;
  }

  /**
   * Opens every connection, a few at a time.
   * @throws {ToolFailedError} when one is refused, or not all have their CONNACK within a minute.
   */
  async open(): Promise<void> {
    const deadline = performance.now() + OPEN_TIMEOUT_MS;
    for (const [index, connection] of this.#connections.entries()) {
      while (index - this.#readyCount >= OPENING_MAX) await this.#waitForConnack(deadline);
      connection.open();
    }
    while (this.#readyCount < this.#connections.length) await this.#waitForConnack(deadline);
  }

  /** Fills the windows; from now on every PUBACK brings the next message. */
  startSending(): void {
    this.#phase = 'sending';
    if (this.#options.ratePerS > 0) this.#startRate(this.#options.ratePerS);
    for (const connection of this.#connections) connection.fill();
  }

  /** What {@link stopMeasuring} returns is counted from here. */
  startMeasuring(): void {
    this.#latency.reset();
    const acknowledged = this.#acknowledged;
    this.#measuredFrom = { acknowledged, timeMs: performance.now(), cpu: process.cpuUsage() };
  }

  /** @throws {ToolFailedError} when a connection was lost that is not to be opened again. */
  stopMeasuring(): Measurement {
    if (this.#fault !== null) throw new ToolFailedError(this.#fault);
    const from = this.#measuredFrom;
    const cpu = process.cpuUsage(from.cpu);
    const acknowledged = this.#acknowledged - from.acknowledged;
    const isTimed = this.#latency.count > 0;
    return {
      acknowledged,
      seconds: (performance.now() - from.timeMs) / 1000,
      p50Ms: isTimed ? this.#latency.percentile(50) / 1000 : 0,
      p99Ms: isTimed ? this.#latency.percentile(99) / 1000 : 0,
      maxMs: isTimed ? this.#latency.max / 1000 : 0,
      cpuUs: (cpu.user + cpu.system) / Math.max(1, acknowledged),
    };
  }

  /** Sends nothing new, waits up to `timeoutMs` for what is in flight, and closes everything. */
  async stop(timeoutMs: number): Promise<LoadTotal> {
    this.#phase = 'draining';
    clearInterval(this.#rateTimer);
    const deadline = performance.now() + timeoutMs;
    while (this.#inFlight() > 0 && performance.now() < deadline) await delay(10);
    const unacknowledged = this.#inFlight();
    this.#phase = 'closed';
    for (const connection of this.#connections) connection.close();
    const ackLog = this.#ackLog;
    if (ackLog !== null) await new Promise<void>((done) => ackLog.end(this.#ackLines, done));
    return {
      acknowledgedTotal: this.#acknowledged,
      unacknowledged,
      connectionsLost: this.#connectionsLost,
    };
  }

  async #waitForConnack(deadline: number): Promise<void> {
    if (this.#fault !== null) throw new ToolFailedError(this.#fault);
    if (performance.now() > deadline) {
      const { length } = this.#connections;
      throw new ToolFailedError(`only ${this.#readyCount} of ${length} connections have a CONNACK`);
    }
    await delay(5);
  }

  #observer(): ConnectionObserver {
    return {
      opened: () => {
        this.#readyCount += 1;
      },
      allowance: (wanted) => this.#allowance(wanted),
      acknowledged: (connection, slot) => this.#onAcknowledged(connection, slot),
      closed: (connection, wasOpen, reason) => this.#onClosed(connection, wasOpen, reason),
    };
  }

  #allowance(wanted: number): number {
    if (this.#phase !== 'sending') return 0;
    if (this.#options.ratePerS === 0) return wanted;
    const count = Math.min(wanted, Math.floor(this.#allowed));
    this.#allowed -= count;
    return count;
  }

  #startRate(ratePerS: number): void {
    let lastMs = performance.now();
    let first = 0;
    this.#rateTimer = setInterval(() => {
      const nowMs = performance.now();
      // What could not be sent for a second, in an outage, is not made up for.
      this.#allowed = Math.min(ratePerS, this.#allowed + ((nowMs - lastMs) * ratePerS) / 1000);
      lastMs = nowMs;
      const { length } = this.#connections;
      // Another connection comes first each time: the allowance may not reach all of them.
      first = (first + 1) % length;
      for (let index = 0; index < length && this.#allowed >= 1; index += 1) {
        this.#connections[(first + index) % length]?.fill();
      }
    }, RATE_TICK_MS);
  }

  #onAcknowledged(connection: GeneratorConnection, slot: number): void {
    this.#acknowledged += 1;
    if (this.#acknowledged % TIMED_EVERY === 0) {
      const latencyMs = performance.now() - (connection.sentAtMs[slot] ?? 0);
      this.#latency.record(Math.max(1, Math.round(latencyMs * 1000)));
    }
    if (this.#ackLog === null) return;
    const device = this.#options.keys[connection.number]?.device ?? '';
    const { ring } = connection;
    this.#ackLines += `${device} ${ring.timeMs(slot)} ${ring.number(slot)} ${Date.now()}\n`;
    if (this.#ackLines.length < ACK_LOG_CHUNK) return;
    this.#ackLog.write(this.#ackLines);
    this.#ackLines = '';
  }

  #onClosed(connection: GeneratorConnection, wasOpen: boolean, reason: string): void {
    if (this.#phase === 'closed') return;
    if (wasOpen) {
      this.#readyCount -= 1;
      this.#connectionsLost += 1;
    }
    if (this.#options.reconnects && this.#phase !== 'opening') {
      setTimeout(() => this.#reopen(connection), 50 + Math.random() * 250);
    } else {
      this.#fault ??= `connection ${connection.number + 1}: ${reason}`;
    }
  }

  #reopen(connection: GeneratorConnection): void {
    if (this.#phase !== 'closed') connection.open();
  }

  #inFlight(): number {
    return this.#connections.reduce((sum, connection) => sum + connection.inFlight, 0);
  }
}

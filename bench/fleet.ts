import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';
import type { AcknowledgedLog } from './acknowledged-log.ts';
import type { BoardAccess } from './fleet-keys.ts';
import type { SensorReading } from './sensor-curves.ts';
import { SimulatedBoard, type BoardObserver } from './simulated-board.ts';
import type { BoardHabits } from './simulated-downlink.ts';

/** Counts since the start of the fleet, in messages. */
export interface FleetCounts {
  sent: number;
  acknowledged: number;
  /** Sent again after a lost connection, without being acknowledged before. */
  resent: number;
  /** Not made, because 1 000 messages of that board waited for their acknowledgement. */
  skipped: number;
  connected: number;
  connectionsLost: number;
  /** Why a connection was refused or lost last, or null. */
  lastFault: string | null;
}

/** PUBACK latency in milliseconds. */
export interface Latency {
  p50: number;
  p99: number;
  max: number;
}

/** What a fleet is made of. */
export interface FleetOptions {
  mqttUrl: string;
  boards: readonly BoardAccess[];
  /** Messages a second from each board. */
  ratePerS: number;
  /** Takes every acknowledged message; left out when nobody checks later. */
  log?: AcknowledgedLog;
  /** Connections opened in a second. */
  connectsPerS?: number;
  /** What a board measures; `sensorReading` when left out. */
  readingOf?: (board: number, timeMs: number) => SensorReading;
  /** How a board takes what comes down to it; left out: none greets or listens. */
  habitsOf?: (board: number) => BoardHabits;
}

const CONNECTS_PER_S = 200;
const RAMP_TICK_MS = 50;
const LATENCY_US_MAX = 3_600_000_000;

/** A fleet of simulated boards: real MQTT connections that publish sensor readings with QoS 1. */
export class Fleet {
  readonly #options: FleetOptions;
  readonly #boards: readonly SimulatedBoard[];
  readonly #counts: FleetCounts = {
    sent: 0,
    acknowledged: 0,
    resent: 0,
    skipped: 0,
    connected: 0,
    connectionsLost: 0,
    lastFault: null,
  };
  readonly #latency = newHistogram();
  readonly #intervalLatency = newHistogram();
  #rampTimer: NodeJS.Timeout | undefined;

  constructor(options: FleetOptions) {
    this.#options = options;
    const observer = this.#observer();
    this.#boards = options.boards.map(
      (access) =>
        new SimulatedBoard(access, options.mqttUrl, observer, {
          readingOf: options.readingOf,
          habits: options.habitsOf?.(access.number),
        }),
    );
  }

  get counts(): Readonly<FleetCounts> {
    return this.#counts;
  }

  /** Latency since the start. */
  get latency(): Latency {
    return latencyOf(this.#latency);
  }

  /** Latency since the last call. */
  takeIntervalLatency(): Latency {
    const latency = latencyOf(this.#intervalLatency);
    this.#intervalLatency.reset();
    return latency;
  }

  /** Opens the connections little by little; each board publishes once its connection was begun. */
  start(): void {
    const periodMs = 1000 / this.#options.ratePerS;
    const perTick = ((this.#options.connectsPerS ?? CONNECTS_PER_S) * RAMP_TICK_MS) / 1000;
    let allowed = 0;
    let next = 0;
    const ramp = (): void => {
      allowed += perTick;
      for (; next < this.#boards.length && next < allowed; next += 1) {
        this.#boards[next]?.connect();
        this.#boards[next]?.startPublishing(periodMs, Math.random() * periodMs);
      }
      if (next < this.#boards.length) this.#rampTimer = setTimeout(ramp, RAMP_TICK_MS);
    };
    ramp();
  }

  /**
   * Stops making messages and waits for the acknowledgements of those that wait.
   * @returns the number of messages that are still unacknowledged after `timeoutMs`
   */
  async drain(timeoutMs: number): Promise<number> {
    clearTimeout(this.#rampTimer);
    for (const board of this.#boards) board.stopPublishing();
    const deadline = performance.now() + timeoutMs;
    while (this.#waitingCount() > 0 && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return this.#waitingCount();
  }

  /** Closes every connection. */
  async close(): Promise<void> {
    clearTimeout(this.#rampTimer);
    await Promise.all(this.#boards.map((board) => board.close()));
  }

  #waitingCount(): number {
    return this.#boards.reduce((sum, board) => sum + board.waitingCount, 0);
  }

  #observer(): BoardObserver {
    const counts = this.#counts;
    const record = (latencyMs: number): void => {
      const latencyUs = Math.min(LATENCY_US_MAX, Math.max(1, Math.round(latencyMs * 1000)));
      this.#latency.record(latencyUs);
      this.#intervalLatency.record(latencyUs);
    };
    return {
      sent: () => (counts.sent += 1),
      resent: () => (counts.resent += 1),
      skipped: () => (counts.skipped += 1),
      connected: () => (counts.connected += 1),
      left: () => (counts.connected -= 1),
      acknowledged: (board, timeMs, latencyMs) => {
        counts.acknowledged += 1;
        this.#options.log?.add(board, timeMs);
        record(latencyMs);
      },
      disconnected: (wasConnected, reason) => {
        if (wasConnected) {
          counts.connected -= 1;
          counts.connectionsLost += 1;
        }
        if (reason !== null) counts.lastFault = reason;
      },
    };
  }
}

function newHistogram(): RecordableHistogram {
  return createHistogram({ lowest: 1, highest: LATENCY_US_MAX, figures: 3 });
}

function latencyOf(histogram: RecordableHistogram): Latency {
  if (histogram.count === 0) return { p50: 0, p99: 0, max: 0 };
  return {
    p50: histogram.percentile(50) / 1000,
    p99: histogram.percentile(99) / 1000,
    max: histogram.max / 1000,
  };
}

import { DeadlineHeap, type Timed } from '../../deadline-heap.ts';
import type { LateReading } from '../evaluation/device-evaluation.ts';

/** Times of a device in which readings came late, for rules with `late: re-evaluate`. */
export interface LateRange {
  readonly deviceId: number;
  readonly organizationId: number;
  /** Metrics that had late readings, of those that rules look at. */
  readonly metrics: ReadonlySet<string>;
  /** Event times of the first and the last of them, microseconds since 1970. */
  readonly fromMicros: number;
  readonly toMicros: number;
}

/** How many ranges wait, and how long. */
export interface LateRangeLimits {
  readonly devicesMax: number;
  /** A range waits until no late reading has come for so long. */
  readonly quietMs: number;
  /** But no longer than this from the first one on. */
  readonly longestMs: number;
}

/** The default bounds. */
export const LATE_RANGE_LIMITS: LateRangeLimits = {
  devicesMax: 10_000,
  quietMs: 5000,
  longestMs: 60_000,
};

interface OpenRange extends Timed {
  readonly deviceId: number;
  readonly organizationId: number;
  readonly metrics: Set<string>;
  readonly firstNotedMs: number;
  fromMicros: number;
  toMicros: number;
}

/**
 * Collects late readings by device until a device sends no more of them for a while, so that a thousand
 * readings that were stored in a device are one re-evaluation. One range a device: from the first to the
 * last late time, also when most between was in time.
 *
 * In memory only. What a crash loses of it is the re-evaluation of at most `longestMs`, not a reading;
 * the same range can be evaluated again at any time by a backtest.
 */
export class LateRanges {
  readonly #limits: LateRangeLimits;
  readonly #now: () => number;
  readonly #ranges = new Map<number, OpenRange>();
  readonly #due = new DeadlineHeap<OpenRange>();
  #dropped = 0;

  /** @param now milliseconds; any clock that does not go back. */
  constructor(now: () => number, limits: LateRangeLimits = LATE_RANGE_LIMITS) {
    this.#now = now;
    this.#limits = limits;
  }

  /** Devices with a range. */
  get size(): number {
    return this.#ranges.size;
  }

  /** Readings left out because too many devices had ranges. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Notes a reading that was left out of live evaluation. Beyond the bound of devices it is counted only. */
  note({ deviceId, organizationId, metric, timeMicros }: LateReading): void {
    const nowMs = this.#now();
    let range = this.#ranges.get(deviceId);
    if (range === undefined) {
      if (this.#ranges.size >= this.#limits.devicesMax) {
        this.#dropped += 1;
        return;
      }
      range = {
        deviceId,
        organizationId,
        metrics: new Set(),
        firstNotedMs: nowMs,
        fromMicros: timeMicros,
        toMicros: timeMicros,
        deadlineMs: 0,
        heapIndex: -1,
      };
      this.#ranges.set(deviceId, range);
    }
    range.metrics.add(metric);
    range.fromMicros = Math.min(range.fromMicros, timeMicros);
    range.toMicros = Math.max(range.toMicros, timeMicros);
    const { quietMs, longestMs } = this.#limits;
    this.#due.put(range, Math.min(nowMs + quietMs, range.firstNotedMs + longestMs));
  }

  /** Takes the next range that is due; null: none is. */
  takeDue(): LateRange | null {
    const range = this.#due.takeDue(this.#now());
    if (range === null) return null;
    this.#ranges.delete(range.deviceId);
    const { deviceId, organizationId, metrics, fromMicros, toMicros } = range;
    return { deviceId, organizationId, metrics, fromMicros, toMicros };
  }

  /** Forgets a device that was deleted. */
  forget(deviceId: number): void {
    const range = this.#ranges.get(deviceId);
    if (range === undefined) return;
    this.#ranges.delete(deviceId);
    this.#due.remove(range);
  }
}

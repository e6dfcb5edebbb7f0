import type { StoredEvent } from './device-load.ts';
import type { DeviceSeries } from './device-series.ts';
import { ReorderBuffer } from './reorder.ts';

/** A reading that waits for its order. */
export interface DelayedReading {
  readonly timeMicros: number;
  readonly handle: DeviceSeries;
  readonly value: number;
  readonly text: string | null;
}

/** What waits for its order. */
export type Delayed = DelayedReading | { readonly timeMicros: number; readonly event: StoredEvent };

/**
 * What of a device waits for its order, for all rules with one allowed lateness: until a time is newer by
 * more than that, or, as the wall clock has it, so much time has passed.
 */
export class ReorderFeed {
  readonly latenessMicros: number;
  readonly #buffer: ReorderBuffer<Delayed>;
  /** Pushed out before its time because too much waited. */
  #overflowMicros = -Infinity;

  constructor(latenessMicros: number, max: number) {
    this.latenessMicros = latenessMicros;
    this.#buffer = new ReorderBuffer(max);
  }

  /** When the wall clock has what waits go on; Infinity when nothing waits. */
  get deadlineMicros(): number {
    return this.#buffer.oldestMicros + this.latenessMicros;
  }

  add(delayed: Delayed): void {
    if (!this.#buffer.add(delayed)) this.#overflowMicros = this.#buffer.oldestMicros;
  }

  /**
   * All of the oldest time, when nothing of that time may come any more; empty when something may.
   * @param wallMicros what was due before that time goes on in any case.
   */
  takeSample(wallMicros: number): Delayed[] {
    const { oldestMicros, newestMicros } = this.#buffer;
    const untilMicros = Math.max(newestMicros, wallMicros) - this.latenessMicros;
    if (!(oldestMicros < untilMicros) && oldestMicros > this.#overflowMicros) return [];
    const taken: Delayed[] = [];
    for (;;) {
      const next = this.#buffer.take(oldestMicros);
      if (next === null) return taken;
      taken.push(next);
    }
  }
}

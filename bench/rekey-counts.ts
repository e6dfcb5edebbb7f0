import { createHistogram } from 'node:perf_hooks';

/** PUBACK times in ms. */
export interface PubackTimes {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** What boards whose keys are changed count together. */
export class RekeyCounts {
  /** CONNACK 0. */
  connects = 0;
  /** CONNACK 4 or 5. */
  refused = 0;
  /** Closed before CONNACK, or CONNACK 3. */
  connectsFailed = 0;
  powerCuts = 0;
  /** Requests for a new key. */
  asked = 0;
  /** Requests that were answered with `no`. */
  denied = 0;
  /** Let in with the key before the one that was used last. */
  oldKeyAccepted = 0;
  /** Devices that were once refused with every key that they have. */
  readonly lockedOut = new Set<string>();
  readonly #puback = createHistogram({ lowest: 1, highest: 3_600_000_000, figures: 3 });
  #isMeasured = false;

  /** Times are measured from now on. */
  startMeasuring(): void {
    this.#isMeasured = true;
  }

  /** @returns the times since {@link startMeasuring}. */
  stopMeasuring(): PubackTimes {
    this.#isMeasured = false;
    const histogram = this.#puback;
    return {
      p50Ms: histogram.percentile(50) / 1000,
      p99Ms: histogram.percentile(99) / 1000,
      maxMs: histogram.max / 1000,
    };
  }

  /** A PUBACK so long behind its PUBLISH on the same connection. */
  acknowledged(ms: number): void {
    if (this.#isMeasured) this.#puback.record(Math.max(1, Math.round(ms * 1000)));
  }
}

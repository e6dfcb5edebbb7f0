/** What is done: SIGKILL or SIGTERM for the program, SIGKILL for its database, SIGKILL for both. */
export type Fault = 'kill-program' | 'restart-program' | 'kill-database' | 'kill-both';

/** A fault and when it struck, ms since 1970. */
export interface Strike {
  fault: Fault;
  atMs: number;
}

/** One fault and what was acknowledged around it. */
export interface FaultRecord extends Strike {
  /** PUBACKs in the second before. */
  acknowledgedBefore: number;
  /** PUBACKs after it struck and before the silence: they were under way at that moment. */
  acknowledgedUnderWay: number;
  /** From the fault to the first PUBACK after the silence; null when the next fault came first. */
  recoveredMs: number | null;
}

/**
 * Finds, in the times of all PUBACKs, the silence that each fault caused: the longest pause between two
 * PUBACKs from the fault to the next one.
 */
export class SilenceFinder {
  readonly records: FaultRecord[];
  /** Index of the fault whose time it is, -1 before the first. */
  #current = -1;
  #lastMs = 0;
  #longestMs = 0;
  #sinceStrike = 0;
  /** Times of the last second, for the count before a fault. */
  #recentMs: number[] = [];

  constructor(strikes: readonly Strike[]) {
    this.records = strikes.map((strike) => ({
      ...strike,
      acknowledgedBefore: 0,
      acknowledgedUnderWay: 0,
      recoveredMs: null,
    }));
  }

  /** Takes the time of the next PUBACK; times never fall. */
  add(timeMs: number): void {
    while (timeMs >= (this.records[this.#current + 1]?.atMs ?? Number.POSITIVE_INFINITY)) {
      this.#enterNext();
    }
    const record = this.records[this.#current];
    if (record !== undefined) {
      const pauseMs = timeMs - this.#lastMs;
      if (pauseMs > this.#longestMs) {
        this.#longestMs = pauseMs;
        record.acknowledgedUnderWay = this.#sinceStrike;
        record.recoveredMs = timeMs - record.atMs;
      }
      this.#sinceStrike += 1;
    }
    this.#lastMs = timeMs;
    this.#recentMs.push(timeMs);
    if (this.#recentMs.length > 100_000) this.#recentMs = this.#within(timeMs);
  }

  #enterNext(): void {
    this.#current += 1;
    const record = this.records[this.#current];
    if (record === undefined) return;
    this.#recentMs = this.#within(record.atMs);
    record.acknowledgedBefore = this.#recentMs.length;
    this.#lastMs = record.atMs;
    this.#longestMs = 0;
    this.#sinceStrike = 0;
  }

  #within(timeMs: number): number[] {
    return this.#recentMs.filter((time) => time >= timeMs - 1000);
  }
}

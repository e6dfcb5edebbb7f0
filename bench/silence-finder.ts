/** A fault, when it struck and when it was healed, ms since 1970. */
export interface Strike {
  fault: string;
  atMs: number;
  healedAtMs: number;
}

/** One fault and what was acknowledged around it. */
export interface FaultRecord extends Strike {
  /** PUBACKs in the second before. */
  acknowledgedBefore: number;
  /** PUBACKs from when it struck until it was healed. */
  acknowledgedDuring: number;
  /** PUBACKs after it struck and before the longest silence: they were under way at that moment. */
  acknowledgedUnderWay: number;
  /** The longest pause between two PUBACKs, until the next fault. */
  silenceMs: number;
  /** From the fault to the first PUBACK after that pause; null when none came before the next fault. */
  recoveredMs: number | null;
}

/**
 * Finds, in the times of all PUBACKs, the silence that each fault caused: the longest pause between two
 * PUBACKs from the fault to the next one. Of faults that overlap, PUBACKs count for the last one.
 */
export class SilenceFinder {
  readonly records: FaultRecord[];
  /** Index of the fault whose time it is, -1 before the first. */
  #current = -1;
  #lastMs = 0;
  #sinceStrike = 0;
  /** Times of the last second, for the count before a fault. */
  #recentMs: number[] = [];

  constructor(strikes: readonly Strike[]) {
    this.records = strikes.map((strike) => ({
      ...strike,
      acknowledgedBefore: 0,
      acknowledgedDuring: 0,
      acknowledgedUnderWay: 0,
      silenceMs: 0,
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
      if (pauseMs > record.silenceMs) {
        record.silenceMs = pauseMs;
        record.acknowledgedUnderWay = this.#sinceStrike;
        record.recoveredMs = timeMs - record.atMs;
      }
      this.#sinceStrike += 1;
      if (timeMs < record.healedAtMs) record.acknowledgedDuring += 1;
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
    this.#sinceStrike = 0;
  }

  #within(timeMs: number): number[] {
    return this.#recentMs.filter((time) => time >= timeMs - 1000);
  }
}

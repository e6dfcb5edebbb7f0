/** The burst that a rate allows, as a multiple of the rate a second. */
const BURST_SECONDS = 5;

/**
 * A rate limit with a burst of five seconds' worth. Times are milliseconds of one monotonic clock.
 * A rate of 0 is no limit.
 */
export class TokenBucket {
  readonly #perSecond: number;
  #tokens: number;
  #filledAt = 0;

  constructor(perSecond: number) {
    this.#perSecond = perSecond;
    this.#tokens = perSecond * BURST_SECONDS;
  }

  /** Takes `count` tokens if they are there; else takes none and says in how many ms they will be. */
  take(count: number, nowMs: number): number {
    if (this.#perSecond === 0) return 0;
    this.#fill(nowMs);
    // A message larger than the burst would wait for ever: it passes when the bucket is full.
    const wanted = Math.min(count, this.#perSecond * BURST_SECONDS);
    if (this.#tokens >= wanted) {
      this.#tokens -= wanted;
      return 0;
    }
    return Math.max(1, Math.ceil(((wanted - this.#tokens) / this.#perSecond) * 1000));
  }

  /** Milliseconds until `count` tokens beyond those that are there will have come. Takes none. */
  waitFor(count: number, nowMs: number): number {
    if (this.#perSecond === 0) return 0;
    this.#fill(nowMs);
    return Math.max(0, ((count - this.#tokens) / this.#perSecond) * 1000);
  }

  #fill(nowMs: number): void {
    const elapsedMs = Math.max(0, nowMs - this.#filledAt);
    this.#filledAt = nowMs;
    const max = this.#perSecond * BURST_SECONDS;
    this.#tokens = Math.min(max, this.#tokens + (elapsedMs / 1000) * this.#perSecond);
  }
}

/** A reading that is handed to a connection. */
export interface OutgoingReading {
  readonly timeMs: number;
  readonly payload: string;
}

/** What a board holds in flight on one connection. */
const IN_FLIGHT_MAX = 10;

/**
 * The numbered readings of one board. Each has a time of its own and stays until its PUBACK, over any number
 * of connections: what is sent twice is stored once, because it has the same time.
 */
export class ReadingOutbox {
  /** Times of all readings that were made, in ms since 1970, ascending; reading `n` is at `n - 1`. */
  readonly timesMs: number[] = [];
  /** Readings that were sent once more, on another connection. */
  resent = 0;
  /** Number by time, oldest first. */
  readonly #waiting = new Map<number, number>();
  readonly #sent = new Set<number>();
  #toSend: number[] = [];
  #inFlight = 0;

  /** Readings without PUBACK. */
  get waitingCount(): number {
    return this.#waiting.size;
  }

  /** Whether the reading of a time is without PUBACK. */
  isWaiting(timeMs: number): boolean {
    return this.#waiting.has(timeMs);
  }

  /** Makes the next reading. */
  make(): void {
    const timeMs = Math.max(Date.now(), (this.timesMs.at(-1) ?? 0) + 1);
    const number = this.timesMs.push(timeMs);
    this.#waiting.set(timeMs, number);
    this.#toSend.push(timeMs);
  }

  /** A new connection: everything that waits is to be sent on it. */
  reopen(): void {
    this.#inFlight = 0;
    this.#toSend = [...this.#waiting.keys()];
  }

  /** The next reading to be sent on this connection; null: none, or enough are in flight. */
  next(): OutgoingReading | null {
    if (this.#inFlight >= IN_FLIGHT_MAX) return null;
    const timeMs = this.#toSend.shift();
    if (timeMs === undefined) return null;
    if (this.#sent.has(timeMs)) this.resent += 1;
    this.#sent.add(timeMs);
    this.#inFlight += 1;
    const n = this.#waiting.get(timeMs);
    return { timeMs, payload: JSON.stringify({ ts: timeMs, n }) };
  }

  /** The PUBACK of a reading came on the connection that is open. */
  acknowledge({ timeMs }: OutgoingReading): void {
    this.#inFlight -= 1;
    this.#waiting.delete(timeMs);
    this.#sent.delete(timeMs);
  }
}

/**
 * The times of the messages that were acknowledged, by board: what must be found later. It takes four
 * bytes a message, so an hour of 1 000 messages/s is 15 MB.
 */
export class AcknowledgedLog {
  readonly #startMs: number;
  readonly #offsets = new Map<number, { times: Uint32Array; count: number }>();

  /** @param startMs no message is older; offsets from it reach 49 days */
  constructor(startMs: number) {
    this.#startMs = startMs;
  }

  /** Notes one acknowledged message. */
  add(board: number, timeMs: number): void {
    let entry = this.#offsets.get(board);
    if (entry === undefined) {
      entry = { times: new Uint32Array(64), count: 0 };
      this.#offsets.set(board, entry);
    }
    if (entry.count === entry.times.length) {
      const larger = new Uint32Array(2 * entry.times.length);
      larger.set(entry.times);
      entry.times = larger;
    }
    entry.times[entry.count] = timeMs - this.#startMs;
    entry.count += 1;
  }

  /** Times of a board in milliseconds since 1970, ascending. */
  times(board: number): Float64Array {
    const entry = this.#offsets.get(board);
    if (entry === undefined) return new Float64Array(0);
    const times = Float64Array.from(entry.times.subarray(0, entry.count), (o) => o + this.#startMs);
    return times.sort();
  }
}

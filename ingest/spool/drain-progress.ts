/** How fast the spool empties. */
export interface DrainPace {
  /** Messages that left the spool a second. */
  readonly messagesPerSecond: number;
  /** Seconds until it is empty while messages come and go as they did; null when it does not shrink. */
  readonly secondsToGo: number | null;
}

interface Sample {
  readonly atMs: number;
  readonly pendingMessages: number;
  readonly drainedMessages: number;
}

/** Over how long the pace is taken. */
const WINDOW_MS = 30_000;
/** Samples nearer than this to the last one replace it, so that their number is bounded. */
const STEP_MS = 500;
/** A shorter time says nothing. */
const SPAN_MS_MIN = 1000;

/** Works out from counts over time how fast the spool empties. At most 61 samples are kept. */
export class DrainProgress {
  readonly #samples: Sample[] = [];

  /**
   * Notes the counts of a moment.
   * @param atMs of the monotonic clock.
   * @param pendingMessages what waits.
   * @param drainedMessages what has left since the start of the program.
   */
  add(atMs: number, pendingMessages: number, drainedMessages: number): void {
    const samples = this.#samples;
    const beforeLast = samples.at(-2);
    if (beforeLast !== undefined && atMs - beforeLast.atMs < STEP_MS) samples.pop();
    samples.push({ atMs, pendingMessages, drainedMessages });
    while (samples[0] !== undefined && atMs - samples[0].atMs > WINDOW_MS) samples.shift();
  }

  /** Forgets what was; for when draining begins. */
  clear(): void {
    this.#samples.length = 0;
  }

  /** The pace over the last half minute; null while less than a second of it is known. */
  pace(): DrainPace | null {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined) return null;
    const spanMs = last.atMs - first.atMs;
    if (spanMs < SPAN_MS_MIN) return null;
    const messagesPerSecond = ((last.drainedMessages - first.drainedMessages) * 1000) / spanMs;
    const shrunkPerSecond = ((first.pendingMessages - last.pendingMessages) * 1000) / spanMs;
    if (last.pendingMessages === 0) return { messagesPerSecond, secondsToGo: 0 };
    const secondsToGo = shrunkPerSecond > 0 ? last.pendingMessages / shrunkPerSecond : null;
    return { messagesPerSecond, secondsToGo };
  }
}

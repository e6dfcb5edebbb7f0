// HOT PATH: `now` once per message; 60 ns
/** Where a {@link SteadyClock} reads time, all in milliseconds. */
export interface TimeSources {
  /** Wall clock, since 1970: may be set at any moment. */
  readonly wall: () => number;
  /** Never set; stands still while the machine sleeps. */
  readonly monotonic: () => number;
  /** How long the machine is up, sleep included. Asked seldom: it may be slow. */
  readonly uptime: () => number;
}

/** What a wall clock did that was looked at again. */
export interface ClockStep {
  /** By how much it was set, ms. */
  readonly byMs: number;
  /** False: time goes on as it did, for now. True: it is believed. */
  readonly isBelieved: boolean;
}

/** What the wall clock may differ from what was expected and still be followed at once, ms. */
const STEP_MS_MAX = 2000;
/** A wall clock that was set is believed after this time, ms. */
export const STEP_BELIEVED_AFTER_MS = 300_000;
/** So long after the machine has started its clock is expected to be set, ms. */
const STARTED_MS = 600_000;
/** How often uptime is noted beside the wall clock, ms. */
const ANCHOR_EVERY_MS = 10_000;

/**
 * The wall clock, but for steps. One that is set by more than two seconds is followed when it has stayed so
 * for five minutes; until then time goes on as before. So a clock that is wrong for a moment (a bad time
 * server, a hand on the wrong machine) neither dates readings wrongly nor makes the times of devices look
 * wrong, which would store what they send again twice. A clock that was wrong and is set right is wrong
 * for five minutes more. Sleep of the machine is no step; and right after the machine has started its
 * clock is followed at once, because then it is set for the first time.
 */
export class SteadyClock {
  readonly #sources: TimeSources;
  readonly #onStep: (step: ClockStep) => void;
  /** Wall clock less monotonic clock, as believed. */
  #offsetMs: number;
  #anchoredAtMs: number;
  /** Wall clock less uptime, as believed. */
  #anchorMs: number;
  /** The step that is not believed yet: wall clock less monotonic clock, and since when. */
  #doubtedMs: number | null = null;
  #doubtedSinceMs = 0;

  constructor(sources: TimeSources, onStep: (step: ClockStep) => void = () => undefined) {
    this.#sources = sources;
    this.#onStep = onStep;
    this.#anchoredAtMs = sources.monotonic();
    this.#offsetMs = sources.wall() - this.#anchoredAtMs;
    this.#anchorMs = sources.wall() - sources.uptime();
  }

  /** Whole milliseconds since 1970. */
  readonly now = (): number => {
    const monotonicMs = this.#sources.monotonic();
    const wallMs = this.#sources.wall();
    const offsetMs = wallMs - monotonicMs;
    if (Math.abs(offsetMs - this.#offsetMs) > STEP_MS_MAX)
      return this.#stepped(wallMs, monotonicMs);
    this.#offsetMs = offsetMs;
    this.#doubtedMs = null;
    if (monotonicMs - this.#anchoredAtMs > ANCHOR_EVERY_MS) this.#anchor(wallMs, monotonicMs);
    return Math.floor(wallMs);
  };

  #stepped(wallMs: number, monotonicMs: number): number {
    const offsetMs = wallMs - monotonicMs;
    const uptimeMs = this.#sources.uptime();
    const hasSlept = Math.abs(wallMs - uptimeMs - this.#anchorMs) <= STEP_MS_MAX;
    if (hasSlept || uptimeMs < STARTED_MS) return this.#believe(wallMs, monotonicMs);
    if (this.#doubtedMs === null || Math.abs(offsetMs - this.#doubtedMs) > STEP_MS_MAX) {
      this.#doubtedSinceMs = monotonicMs;
      this.#onStep({ byMs: Math.round(offsetMs - this.#offsetMs), isBelieved: false });
    }
    this.#doubtedMs = offsetMs;
    if (monotonicMs - this.#doubtedSinceMs >= STEP_BELIEVED_AFTER_MS) {
      this.#onStep({ byMs: Math.round(offsetMs - this.#offsetMs), isBelieved: true });
      return this.#believe(wallMs, monotonicMs);
    }
    return Math.floor(monotonicMs + this.#offsetMs);
  }

  #believe(wallMs: number, monotonicMs: number): number {
    this.#offsetMs = wallMs - monotonicMs;
    this.#doubtedMs = null;
    this.#anchor(wallMs, monotonicMs);
    return Math.floor(wallMs);
  }

  #anchor(wallMs: number, monotonicMs: number): void {
    this.#anchoredAtMs = monotonicMs;
    this.#anchorMs = wallMs - this.#sources.uptime();
  }
}

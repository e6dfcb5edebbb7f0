import { reasonOf, StoreUnavailableError } from '../../errors.ts';
import type { Logger } from '../../log.ts';

/** What came of one round of work. */
export interface Round {
  /** There is more to do at once. */
  readonly isMore: boolean;
  /** When there will be something to do, in ms since 1970; null: not known of anything. */
  readonly nextMs: number | null;
}

/** What a {@link Loop} does. */
export interface LoopParts {
  readonly name: string;
  readonly work: () => Promise<Round>;
  readonly now: () => number;
  readonly log: Logger;
  /** Longest time without a look, for what this program is not told of. */
  readonly pollMs: number;
}

const RETRY_MS = 1000;

/**
 * Does work in rounds, one at a time: when woken, when something is due, and every now and then. While
 * the database is away it tries again each second.
 */
export class Loop {
  readonly #parts: LoopParts;
  #isRunning = false;
  #isWoken = false;
  #isStopped = true;
  #isFailing = false;
  #timer: NodeJS.Timeout | null = null;
  #round: Promise<void> = Promise.resolve();

  constructor(parts: LoopParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#isStopped = false;
    this.wake();
  }

  /** Looks for work now, or again when the round under way ends. */
  wake(): void {
    if (this.#isStopped) return;
    this.#isWoken = true;
    if (!this.#isRunning) this.#round = this.#run();
  }

  /** Ends behind the round under way. */
  stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    return this.#round;
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    let waitMs = 0;
    while (!this.#isStopped && (this.#isWoken || waitMs === 0)) {
      this.#isWoken = false;
      waitMs = await this.#once();
      // Asked for while the database is away: not sooner.
      if (this.#isFailing) break;
    }
    this.#isRunning = false;
    if (this.#isStopped) return;
    this.#timer = setTimeout(() => this.wake(), Math.max(waitMs, 1));
    this.#timer.unref();
  }

  /** @returns after how many ms to go on; 0: at once. */
  async #once(): Promise<number> {
    const { work, name, now, log, pollMs } = this.#parts;
    try {
      const { isMore, nextMs } = await work();
      if (this.#isFailing) log.info({ part: name }, 'notification goes on');
      this.#isFailing = false;
      if (isMore) return 0;
      return Math.max(Math.min(pollMs, (nextMs ?? Infinity) - now()), 1);
    } catch (err) {
      const isAway = err instanceof StoreUnavailableError;
      if (!this.#isFailing) {
        const fields = { part: name, err: isAway ? reasonOf(err) : err };
        log[isAway ? 'warn' : 'error'](fields, 'notification waits, will be tried again');
      }
      this.#isFailing = true;
      return RETRY_MS;
    }
  }
}

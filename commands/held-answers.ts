import { setTimeout as delay } from 'node:timers/promises';
import { StoreUnavailableError } from '../errors.ts';
import { Lanes } from './lanes.ts';

const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 5000;
/** What fails so often though the database is there is a fault of ours: about two minutes. */
const FAULTS_MAX = 30;

/**
 * What devices say and what has to be committed, tried until it is: of each device in order. Beyond
 * `heldMax` it waits at the door, without being tried; the broker reads no more of that connection then.
 */
export class HeldAnswers {
  readonly #heldMax: number;
  readonly #failed: () => void;
  readonly #order = new Lanes(Infinity);
  readonly #atDoor: (() => void)[] = [];
  readonly #stopping = new AbortController();
  #held = 0;

  /** @param failed is told each time that the database does not take one. */
  constructor(heldMax: number, failed: () => void) {
    this.#heldMax = heldMax;
    this.#failed = failed;
  }

  /** How many are being tried. */
  get size(): number {
    return this.#held;
  }

  /**
   * Resolves with what `work` returns once it does. Rejects when it has failed thirty times with something else
   * than {@link StoreUnavailableError}.
   * Behind {@link stop} it never does either.
   */
  async take<T>(lane: string, work: () => Promise<T>): Promise<T> {
    if (this.#held >= this.#heldMax) {
      await new Promise<void>((resolve) => this.#atDoor.push(resolve));
    } else {
      this.#held += 1;
    }
    try {
      return await this.#order.run(lane, () => this.#untilTaken(work));
    } finally {
      const next = this.#atDoor.shift();
      if (next === undefined) this.#held -= 1;
      else next();
    }
  }

  /** Tries nothing more. */
  stop(): void {
    this.#stopping.abort();
  }

  async #untilTaken<T>(work: () => Promise<T>): Promise<T> {
    const { signal } = this.#stopping;
    let faults = 0;
    for (let waitMs = RETRY_MS_MIN; ; waitMs = Math.min(waitMs * 2, RETRY_MS_MAX)) {
      if (signal.aborted) return new Promise<never>(() => undefined);
      try {
        return await work();
      } catch (error) {
        faults += error instanceof StoreUnavailableError ? 0 : 1;
        if (faults === FAULTS_MAX) throw error;
        this.#failed();
      }
      const jittered = waitMs * (0.5 + Math.random() / 2);
      await delay(jittered, undefined, { signal }).catch(() => undefined);
    }
  }
}

import { QuestionsBusyError } from '../errors.ts';

/** Bounds of {@link Turns}. */
export interface TurnLimits {
  /** At once, of all organizations. */
  readonly all: number;
  /** Longest wait for a turn, in ms. */
  readonly waitMs: number;
}

const BUSY = 'too many questions of this kind are being answered; ask one after the other';

/** Somebody who waits for a turn. */
interface Waiter {
  readonly organizationId: number;
  readonly begin: () => void;
}

/**
 * Lets long questions to the database go one at a time for each organization, and few in all: they share
 * its connections with the logins of devices. Who waits for too long is refused.
 */
export class Turns {
  readonly #limits: TurnLimits;
  readonly #busy = new Set<number>();
  readonly #waiting = new Set<Waiter>();

  constructor(limits: TurnLimits) {
    this.#limits = limits;
  }

  /** Runs the work when it is its turn. @throws {QuestionsBusyError} when that does not come in time. */
  async run<T>(organizationId: number, work: () => Promise<T>): Promise<T> {
    if (!this.#isFree(organizationId)) await this.#wait(organizationId);
    else this.#busy.add(organizationId);
    try {
      return await work();
    } finally {
      this.#busy.delete(organizationId);
      this.#next();
    }
  }

  #isFree(organizationId: number): boolean {
    return this.#busy.size < this.#limits.all && !this.#busy.has(organizationId);
  }

  #wait(organizationId: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(waiter);
        reject(new QuestionsBusyError(BUSY));
      }, this.#limits.waitMs);
      const begin = (): void => {
        clearTimeout(timer);
        resolve();
      };
      const waiter = { organizationId, begin };
      this.#waiting.add(waiter);
    });
  }

  /** The one that has waited for longest and whose organization has no turn. */
  #next(): void {
    for (const waiter of this.#waiting) {
      if (!this.#isFree(waiter.organizationId)) continue;
      this.#waiting.delete(waiter);
      this.#busy.add(waiter.organizationId);
      waiter.begin();
      return;
    }
  }
}

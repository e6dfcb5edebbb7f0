/** What {@link Rounds} does. */
export interface RoundParts {
  /** Ids of what is to be worked on. Never rejects. */
  readonly find: () => Promise<readonly string[]>;
  /** A piece of work on one of them. Never rejects. @returns whether there is more to do at once. */
  readonly step: (id: string) => Promise<boolean>;
  /** Longest time between two steps of one. */
  readonly tickMs: number;
}

/** So many are worked on at the same moment. */
const PARALLEL = 4;

/**
 * Works on several things in turns: each tick, and when woken, a step of each; who has more to do stands
 * behind the others again. One thing has one step at a time.
 */
export class Rounds {
  readonly #parts: RoundParts;
  readonly #queue = new Set<string>();
  readonly #busy = new Map<string, Promise<void>>();
  #timer: NodeJS.Timeout | null = null;
  #tick: Promise<void> = Promise.resolve();
  #isStopped = true;

  constructor(parts: RoundParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#isStopped = false;
    this.#tick = this.#look();
  }

  /** Resolves behind the steps under way. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#queue.clear();
    await Promise.all([this.#tick, ...this.#busy.values()]);
  }

  /** A step of this one soon; one more when a step of it is under way. */
  wake(id: string): void {
    if (this.#isStopped) return;
    this.#queue.add(id);
    this.#pump();
  }

  async #look(): Promise<void> {
    const ids = await this.#parts.find();
    if (this.#isStopped) return;
    for (const id of ids) this.wake(id);
    this.#timer = setTimeout(() => {
      this.#tick = this.#look();
    }, this.#parts.tickMs);
    this.#timer.unref();
  }

  #pump(): void {
    for (const id of this.#queue) {
      if (this.#busy.size >= PARALLEL) return;
      if (this.#busy.has(id)) continue;
      this.#queue.delete(id);
      this.#busy.set(id, this.#run(id));
    }
  }

  async #run(id: string): Promise<void> {
    const isMore = await this.#parts.step(id);
    this.#busy.delete(id);
    if (isMore) this.wake(id);
    else this.#pump();
  }
}

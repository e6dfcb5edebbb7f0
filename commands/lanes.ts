/**
 * Runs work of each device one at a time, in the order in which it was asked for, and of all devices only
 * so much at once: what waits for a queue in the database must not use up the connections that others
 * need. It saves waiting; that nothing is changed twice is the database's doing.
 */
export class Lanes {
  readonly #turnsMax: number;
  readonly #lanes = new Map<string, Promise<unknown>>();
  readonly #waiting: (() => void)[] = [];
  #turns = 0;

  constructor(turnsMax: number) {
    this.#turnsMax = turnsMax;
  }

  /** Runs work in a lane, `{organizationId}/{device}`. */
  run<T>(lane: string, work: () => Promise<T>): Promise<T> {
    const before = this.#lanes.get(lane);
    const turn = (before ?? Promise.resolve()).then(() => this.#take(work));
    const settled = turn.then(nothing, nothing);
    this.#lanes.set(lane, settled);
    void settled.then(() => {
      if (this.#lanes.get(lane) === settled) this.#lanes.delete(lane);
    });
    return turn;
  }

  /** Resolves when all work that was asked for until now has ended. */
  async drained(): Promise<void> {
    await Promise.all(this.#lanes.values());
  }

  async #take<T>(work: () => Promise<T>): Promise<T> {
    if (this.#turns >= this.#turnsMax) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else {
      this.#turns += 1;
    }
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#turns -= 1;
      else next();
    }
  }
}

/** The lane of a device. */
export function laneOf({
  organizationId,
  device,
}: {
  readonly organizationId: number;
  readonly device: string;
}): string {
  return `${organizationId}/${device}`;
}

function nothing(): void {}

/** A time in which devices could not be heard, through no fault of theirs. Microseconds since 1970. */
export interface Outage {
  /** -Infinity: nothing is known from before it. */
  readonly downMicros: number;
  readonly backMicros: number;
}

/** Outages that are remembered; beyond it the two oldest become one. */
export const OUTAGES_MAX = 32;

/**
 * Our own outages, oldest first: the program was not running, the database did not answer, the event loop
 * stood still. Several causes at a time are one outage, which ends with the last of them. At most
 * {@link OUTAGES_MAX}.
 */
export class Outages {
  #past: Outage[] = [];
  readonly #causes = new Set<string>();
  #downMicros = Infinity;

  /** Those that are over, oldest first; the same array until another one ends. */
  get past(): readonly Outage[] {
    return this.#past;
  }

  /** True while a cause of an outage holds. */
  get isDown(): boolean {
    return this.#causes.size > 0;
  }

  /** Since when we cannot hear devices; Infinity while we can. */
  get downMicros(): number {
    return this.#downMicros;
  }

  /** When the last one ended; -Infinity when there was none. */
  get backMicros(): number {
    return this.#past.at(-1)?.backMicros ?? -Infinity;
  }

  /** Notes that a cause has begun; nothing changes when it has already. */
  begin(cause: string, atMicros: number): void {
    this.#causes.add(cause);
    this.#downMicros = Math.min(this.#downMicros, atMicros);
  }

  /** Notes the end of a cause. @returns true when the outage is over with it. */
  end(cause: string, atMicros: number): boolean {
    if (!this.#causes.delete(cause) || this.#causes.size > 0) return false;
    this.add(this.#downMicros, atMicros);
    this.#downMicros = Infinity;
    return true;
  }

  /** Adds one that is over; it is joined with those that it overlaps. */
  add(downMicros: number, backMicros: number): void {
    let joined: Outage = { downMicros, backMicros: Math.max(downMicros, backMicros) };
    const past = this.#past.slice();
    for (let last = past.at(-1); last !== undefined; last = past.at(-1)) {
      if (last.backMicros < joined.downMicros) break;
      joined = hullOf(last, joined);
      past.pop();
    }
    past.push(joined);
    const [oldest, next] = past;
    if (past.length > OUTAGES_MAX && oldest !== undefined && next !== undefined) {
      past.splice(0, 2, hullOf(oldest, next));
    }
    this.#past = past;
  }

  /** The clock was set back: nothing has ended later than now. */
  rewind(nowMicros: number): void {
    this.#past = this.#past.map(({ downMicros, backMicros }) => ({
      downMicros: Math.min(downMicros, nowMicros),
      backMicros: Math.min(backMicros, nowMicros),
    }));
    if (this.isDown) this.#downMicros = Math.min(this.#downMicros, nowMicros);
  }

  /** How much of the time since then until then we could not hear anything. */
  downtimeSince(sinceMicros: number, untilMicros: number): number {
    let total = 0;
    for (const { downMicros, backMicros } of this.#past) {
      const from = Math.max(downMicros, sinceMicros);
      total += Math.max(0, Math.min(backMicros, untilMicros) - from);
    }
    return total;
  }
}

function hullOf(left: Outage, right: Outage): Outage {
  return {
    downMicros: Math.min(left.downMicros, right.downMicros),
    backMicros: Math.max(left.backMicros, right.backMicros),
  };
}

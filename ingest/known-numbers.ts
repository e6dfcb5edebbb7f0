/** Numbers that are kept of a boot. */
const NUMBERS_MAX = 1024;

/**
 * Numbers of a boot that are known to be stored, in any order: the last 1024 that were noted. Unlike a
 * window it does not forget a number because a higher one has come.
 */
export class KnownNumbers {
  readonly #numbers = new Set<number>();

  /** Notes a number, and forgets the one noted first beyond the bound. */
  add(seq: number): void {
    this.#numbers.add(seq);
    if (this.#numbers.size <= NUMBERS_MAX) return;
    for (const first of this.#numbers) {
      this.#numbers.delete(first);
      return;
    }
  }

  /** Whether a number was noted. */
  has(seq: number): boolean {
    return this.#numbers.has(seq);
  }
}

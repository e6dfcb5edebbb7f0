/** What a {@link ReorderBuffer} orders. */
export interface Dated {
  readonly timeMicros: number;
}

/**
 * What came in any order, given out in the order of its times: a binary heap. Of equal times the one that
 * came first is first. Bounded: what is too much pushes the oldest out, which is evaluated early.
 */
export class ReorderBuffer<Item extends Dated> {
  readonly #items: { readonly item: Item; readonly order: number }[] = [];
  readonly #max: number;
  #order = 0;
  #newestMicros = -Infinity;

  constructor(max: number) {
    this.#max = max;
  }

  /** Items that wait. */
  get size(): number {
    return this.#items.length;
  }

  /** The newest time that was ever added; -Infinity before the first. */
  get newestMicros(): number {
    return this.#newestMicros;
  }

  /** Time of the oldest item; Infinity when none waits. */
  get oldestMicros(): number {
    return this.#items[0]?.item.timeMicros ?? Infinity;
  }

  /** Adds an item. @returns false when there are more than may be: take one out then. */
  add(item: Item): boolean {
    if (item.timeMicros > this.#newestMicros) this.#newestMicros = item.timeMicros;
    this.#items.push({ item, order: this.#order });
    this.#order += 1;
    this.#rise(this.#items.length - 1);
    return this.#items.length <= this.#max;
  }

  /** Takes the oldest item out when its time is not beyond `untilMicros`. */
  take(untilMicros: number): Item | null {
    const first = this.#items[0];
    if (first === undefined || first.item.timeMicros > untilMicros) return null;
    const last = this.#items.pop();
    if (last !== undefined && this.#items.length > 0) {
      this.#items[0] = last;
      this.#sink();
    }
    return first.item;
  }

  #isBefore(left: number, right: number): boolean {
    const first = this.#items[left];
    const second = this.#items[right];
    if (first === undefined || second === undefined) return first !== undefined;
    const ahead = first.item.timeMicros - second.item.timeMicros;
    return ahead === 0 ? first.order < second.order : ahead < 0;
  }

  #rise(from: number): void {
    for (let index = from; index > 0;) {
      const parent = (index - 1) >> 1;
      if (!this.#isBefore(index, parent)) return;
      this.#swap(index, parent);
      index = parent;
    }
  }

  #sink(): void {
    for (let index = 0; ;) {
      const left = 2 * index + 1;
      const child = this.#isBefore(left + 1, left) ? left + 1 : left;
      if (!this.#isBefore(child, index)) return;
      this.#swap(index, child);
      index = child;
    }
  }

  #swap(left: number, right: number): void {
    const first = this.#items[left];
    const second = this.#items[right];
    if (first === undefined || second === undefined) return;
    this.#items[left] = second;
    this.#items[right] = first;
  }
}

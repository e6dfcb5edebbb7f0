/** What {@link DeadlineHeap} orders. The heap alone writes these two. */
export interface Timed {
  /** In ms since 1970, while the item is in the heap. */
  deadlineMs: number;
  /** Place in the heap; -1 while the item is not in it. */
  heapIndex: number;
}

/**
 * Items by the time at which they are due: a binary heap in which each item stands once. Adding, moving
 * and taking out cost the logarithm of the number of items, looking at the first one nothing.
 */
export class DeadlineHeap<Item extends Timed> {
  readonly #items: Item[] = [];

  /** Items that wait. */
  get size(): number {
    return this.#items.length;
  }

  /** Adds an item, or moves it when it is in the heap. */
  put(item: Item, deadlineMs: number): void {
    item.deadlineMs = deadlineMs;
    if (item.heapIndex < 0) {
      item.heapIndex = this.#items.length;
      this.#items.push(item);
    }
    this.#settle(item);
  }

  /** Takes an item out; nothing happens when it is not in the heap. */
  remove(item: Item): void {
    const index = item.heapIndex;
    if (index < 0) return;
    item.heapIndex = -1;
    const last = this.#items.pop();
    if (last === undefined || last === item) return;
    last.heapIndex = index;
    this.#items[index] = last;
    this.#settle(last);
  }

  /** Takes the earliest item out when it was due before `nowMs`. */
  takeDue(nowMs: number): Item | null {
    const first = this.#items[0];
    if (first === undefined || first.deadlineMs >= nowMs) return null;
    this.remove(first);
    return first;
  }

  #settle(item: Item): void {
    this.#sink(item);
    this.#rise(item);
  }

  #rise(item: Item): void {
    let index = item.heapIndex;
    while (index > 0) {
      const parent = this.#items[(index - 1) >> 1];
      if (parent === undefined || parent.deadlineMs <= item.deadlineMs) break;
      this.#place(parent, index);
      index = (index - 1) >> 1;
    }
    this.#place(item, index);
  }

  #sink(item: Item): void {
    let index = item.heapIndex;
    for (;;) {
      const left = this.#items[2 * index + 1];
      const right = this.#items[2 * index + 2];
      const isRight =
        left !== undefined && right !== undefined && right.deadlineMs < left.deadlineMs;
      const child = isRight ? right : left;
      if (child === undefined || child.deadlineMs >= item.deadlineMs) break;
      const childIndex = isRight ? 2 * index + 2 : 2 * index + 1;
      this.#place(child, index);
      index = childIndex;
    }
    this.#place(item, index);
  }

  #place(item: Item, index: number): void {
    this.#items[index] = item;
    item.heapIndex = index;
  }
}

import type { Message } from './message.ts';

/**
 * Which messages may be acknowledged when a batch is stored. Batches are stored in their order, but for
 * those that go to the spool: a copy told by its `seq` may then be stored before what it is a copy of. It
 * waits until every batch before its own is stored.
 */
export class SettledOrder {
  /** Numbers of the batches that are not stored yet, rising. */
  readonly #unsettled = new Set<number>();
  #copies: { readonly message: Message; readonly number: number }[] = [];

  /** Copies whose own batch is stored and that wait for others. */
  get waitingCopies(): number {
    return this.#copies.length;
  }

  /** Notes a batch; numbers rise. */
  begin(number: number): void {
    this.#unsettled.add(number);
  }

  /** Notes that a batch is stored. @returns the messages that may be acknowledged, in their order. */
  settle(number: number, messages: readonly Message[]): readonly Message[] {
    this.#unsettled.delete(number);
    const [oldest = Infinity] = this.#unsettled;
    if (oldest > number && this.#copies.length === 0) return messages;
    const ready: Message[] = [];
    for (const message of messages) {
      if (message.isDuplicate && oldest < number) this.#copies.push({ message, number });
      else ready.push(message);
    }
    const copies = this.#copies;
    this.#copies = copies.filter((copy) => oldest < copy.number);
    for (const copy of copies) if (oldest > copy.number) ready.push(copy.message);
    return ready;
  }
}

// HOT PATH: three calls for each `seq`, 10 ns together
import type { SequenceRange } from './sequence-ranges.ts';

/** How many numbers, up to the highest one, are told apart. */
const WINDOW_SIZE = 64;

/**
 * Which of the numbers that a device gave its messages have come: each one of the last 64, and how far
 * there is no gap. A number behind the window has no verdict: it counts as new.
 */
export class SequenceWindow {
  #highest = -1;
  #contiguous = -1;
  /** Bit 0 is `highest`, bit 31 is 31 below it. */
  #low = 0;
  #high = 0;

  /** A window of numbers that are stored: `ranges` rise and do not touch. */
  static restore(ranges: readonly SequenceRange[]): SequenceWindow {
    const window = new SequenceWindow();
    const [lowest] = ranges;
    if (lowest === undefined) return window;
    for (const [from, to] of ranges) {
      for (let seq = Math.max(from, to - WINDOW_SIZE); seq < to; seq += 1) window.add(seq);
    }
    window.#contiguous = lowest[1] - 1;
    return window;
  }

  /**
   * The highest number up to which all have come, beginning with the first that came; null before that.
   * A gap that the window has left behind is closed by its numbers in their order.
   */
  get contiguous(): number | null {
    return this.#highest < 0 ? null : this.#contiguous;
  }

  /** The highest number that has come; -1 before the first. */
  get highest(): number {
    return this.#highest;
  }

  /** The numbers that are known to have come, rising. */
  recent(): number[] {
    const numbers: number[] = [];
    for (let distance = WINDOW_SIZE - 1; distance >= 0; distance -= 1) {
      if (this.has(this.#highest - distance)) numbers.push(this.#highest - distance);
    }
    return numbers;
  }

  copy(): SequenceWindow {
    const window = new SequenceWindow();
    window.#highest = this.#highest;
    window.#contiguous = this.#contiguous;
    window.#low = this.#low;
    window.#high = this.#high;
    return window;
  }

  /** Whether a number is known to have come. */
  has(seq: number): boolean {
    const distance = this.#highest - seq;
    return distance >= 0 && distance < WINDOW_SIZE && this.#isSet(distance);
  }

  /** Notes that a number has come. */
  add(seq: number): void {
    if (this.#highest < 0) this.#contiguous = seq;
    const distance = this.#highest - seq;
    if (distance < 0) {
      this.#shift(-distance);
      this.#highest = seq;
      this.#low |= 1;
    } else if (distance < 32) this.#low |= 1 << distance;
    else if (distance < WINDOW_SIZE) this.#high |= 1 << (distance - 32);
    if (seq === this.#contiguous + 1) this.#contiguous = seq;
    this.#closeGap();
  }

  #isSet(distance: number): boolean {
    const bits = distance < 32 ? this.#low : this.#high;
    return ((bits >>> (distance & 31)) & 1) === 1;
  }

  #shift(places: number): void {
    if (places >= WINDOW_SIZE) {
      this.#high = 0;
      this.#low = 0;
    } else if (places >= 32) {
      this.#high = this.#low << (places - 32);
      this.#low = 0;
    } else {
      this.#high = (this.#high << places) | (this.#low >>> (32 - places));
      this.#low <<= places;
    }
  }

  #closeGap(): void {
    let distance = this.#highest - this.#contiguous - 1;
    if (distance >= WINDOW_SIZE) return;
    while (distance >= 0 && this.#isSet(distance)) distance -= 1;
    this.#contiguous = this.#highest - distance - 1;
  }
}

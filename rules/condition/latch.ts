// HOT PATH: once for each sample of a metric
import type { NumberOperator } from './condition.ts';
import type { HoldingMemory } from './operator.ts';
import { clearingOperator, compareNumbers, TRUE, UNKNOWN } from './truth.ts';

/** What of a comparison makes it depend on its own past. */
export interface Hysteresis {
  readonly op: NumberOperator;
  readonly clear: number | null;
  readonly deadBand: number | null;
}

interface Reference {
  value: number;
}

/**
 * Remembers whether a comparison holds. It begins with the threshold; then it lasts until the clear
 * threshold is reached (without one: until the threshold fails), and while it lasts, a value closer than
 * the dead band to the last one that counted makes no difference. Nor does the same sample once more.
 * Kept small: there is one for each rule and device.
 */
export class Latch implements HoldingMemory {
  isHeld = false;
  /** The last value that counted; null without a dead band, and while it is not known. */
  #reference: Reference | null = null;

  /** Takes one sample in. A value that is no number changes nothing. */
  step(hysteresis: Hysteresis, threshold: number, value: number): void {
    const begins = compareNumbers(hysteresis.op, value, threshold);
    if (begins === UNKNOWN) return;
    const { deadBand, clear } = hysteresis;
    if (!this.isHeld) this.isHeld = begins === TRUE;
    else if (deadBand !== null && isWithin(this.#reference, deadBand, value)) return;
    else {
      this.isHeld =
        clear === null
          ? begins === TRUE
          : compareNumbers(clearingOperator(hysteresis.op), value, clear) !== TRUE;
    }
    if (deadBand === null) return;
    if (this.#reference === null) this.#reference = { value };
    else this.#reference.value = value;
  }

  reset(): void {
    this.isHeld = false;
    this.#reference = null;
  }

  hold(): void {
    this.isHeld = true;
  }
}

/** Not a method: a private one would cost each object a word. */
function isWithin(reference: Reference | null, deadBand: number, value: number): boolean {
  return reference !== null && Math.abs(value - reference.value) < deadBand;
}

// HOT PATH: heard once for each message of a watched device
/** What a {@link GapSketch} is written as: `[bucket, weight]`, in the order of buckets. */
export interface SketchContent {
  readonly buckets: readonly (readonly [number, number])[];
}

/** Buckets of one sketch; beyond it the lowest ones, which no high quantile lies in, become one. */
export const BUCKETS_MAX = 48;
/** Weight at which all weights are halved: what was last learned counts most. */
export const WEIGHT_MAX = 1024;
/** Upper bound of a bucket divided by its lower bound. */
const RATIO = 1.1;
/** Largest relative error of a quantile, without regard to buckets that became one. */
export const QUANTILE_ERROR_MAX = (RATIO - 1) / (RATIO + 1);
const LOG_RATIO = Math.log(RATIO);
/** Weights below this are forgotten when they are halved. */
const WEIGHT_MIN = 0.3;

/**
 * A summary of durations that answers for high quantiles with a bounded relative error, as a DDSketch
 * does: counts in buckets whose bounds are a geometric sequence. At most {@link BUCKETS_MAX} numbers twice.
 */
export class GapSketch {
  #buckets: number[] = [];
  #weights: number[] = [];
  #total = 0;

  /** Durations that were added and not forgotten. */
  get weight(): number {
    return this.#total;
  }

  /** Adds a duration; what is below 1 counts as 1. */
  add(duration: number): void {
    this.#addWeight(Math.ceil(Math.log(Math.max(1, duration)) / LOG_RATIO), 1);
    if (this.#total >= WEIGHT_MAX) this.#halve();
  }

  /**
   * The duration that a share of all does not exceed (nearest rank), within {@link QUANTILE_ERROR_MAX};
   * too high, never too low, when it lies in a bucket that became one with others. Null when empty.
   */
  quantile(share: number): number | null {
    const longerMax = this.#total - Math.ceil(share * this.#total);
    let longer = 0;
    for (let index = this.#buckets.length - 1; index >= 0; index -= 1) {
      longer += this.#weights[index] ?? 0;
      if (longer > longerMax || index === 0) return middleOf(this.#buckets[index] ?? 0);
    }
    return null;
  }

  /** What {@link restore} takes. */
  get content(): SketchContent {
    return {
      buckets: this.#buckets.map((bucket, index) => [bucket, this.#weights[index] ?? 0] as const),
    };
  }

  /** Adds what another sketch was written as; what makes no sense is left out. */
  restore({ buckets }: SketchContent): void {
    for (const [bucket, weight] of buckets) {
      const isSound = Number.isInteger(bucket) && weight > 0 && weight <= WEIGHT_MAX;
      if (isSound) this.#addWeight(bucket, weight);
    }
    while (this.#total >= WEIGHT_MAX) this.#halve();
  }

  #addWeight(bucket: number, weight: number): void {
    let index = this.#buckets.length;
    while (index > 0 && (this.#buckets[index - 1] ?? 0) >= bucket) index -= 1;
    this.#total += weight;
    if (this.#buckets[index] === bucket) {
      this.#weights[index] = (this.#weights[index] ?? 0) + weight;
      return;
    }
    this.#buckets.splice(index, 0, bucket);
    this.#weights.splice(index, 0, weight);
    if (this.#buckets.length <= BUCKETS_MAX) return;
    const lowest = this.#weights.shift() ?? 0;
    this.#buckets.shift();
    this.#weights[0] = (this.#weights[0] ?? 0) + lowest;
  }

  #halve(): void {
    const weights = this.#weights.map((weight) => weight / 2);
    this.#buckets = this.#buckets.filter((_, index) => (weights[index] ?? 0) >= WEIGHT_MIN);
    this.#weights = weights.filter((weight) => weight >= WEIGHT_MIN);
    this.#total = this.#weights.reduce((sum, weight) => sum + weight, 0);
  }
}

function middleOf(bucket: number): number {
  return (2 * RATIO ** bucket) / (RATIO + 1);
}

/** Gaps that must be known before a cadence is. */
export const GAPS_MIN = 20;
const SECOND_MICROS = 1_000_000;
/** Messages that come faster are one: a hundred in a burst each hour are hourly. */
const GAP_MICROS_MIN = SECOND_MICROS;
/** Gaps between two looks at the quantile. */
const LOOK_GAPS = 8;
/** Gaps behind which a sketch is worth writing although nothing else has changed. */
const WRITE_GAPS = 128;

/**
 * How long a device usually is silent between two messages, learned from about its last thousand gaps of
 * a second or more. A gap in which a device was silent beyond its deadline counts as long as the deadline,
 * so that one failure teaches nothing, and a slower cadence is learned all the same.
 */
export class Cadence {
  readonly #sketch = new GapSketch();
  #lastMicros = -Infinity;
  #gapP99Micros: number | null = null;
  #gapsUntilLook = GAPS_MIN;
  #gapsUnwritten = 0;
  #isP99Unwritten = false;

  /** The gap that 99 of 100 do not exceed; null while fewer than {@link GAPS_MIN} are known. */
  get gapP99Micros(): number | null {
    return this.#gapP99Micros;
  }

  /** Something was learned that is worth writing now. */
  get isDue(): boolean {
    if (this.#gapP99Micros === null) return this.isUnwritten;
    return this.#isP99Unwritten || this.#gapsUnwritten >= WRITE_GAPS;
  }

  /** Something was learned that is not written. */
  get isUnwritten(): boolean {
    return this.#gapsUnwritten > 0;
  }

  /** The same gap as far as is known; 0 before the first. */
  get gapP99SoFarMicros(): number {
    return this.#sketch.quantile(0.99) ?? 0;
  }

  get content(): SketchContent {
    return this.#sketch.content;
  }

  /** Adds what was learned earlier. */
  restore(content: SketchContent): void {
    this.#sketch.restore(content);
    this.#look();
    this.#isP99Unwritten = false;
  }

  /** Notes that the content was written. */
  markWritten(): void {
    this.#gapsUnwritten = 0;
    this.#isP99Unwritten = false;
  }

  /**
   * Notes a message.
   * @param sinceMicros a gap that began before it is not learned: we could not hear then.
   * @param gapMicrosMax longer gaps count as long as this.
   * @returns true when {@link gapP99Micros} is another one now.
   */
  heard(receivedMicros: number, sinceMicros: number, gapMicrosMax: number): boolean {
    const gapMicros = receivedMicros - this.#lastMicros;
    if (gapMicros >= 0 && gapMicros < GAP_MICROS_MIN) return false;
    const isWhole = this.#lastMicros >= sinceMicros && gapMicros > 0;
    this.#lastMicros = receivedMicros;
    if (!isWhole || gapMicros === Infinity) return false;
    this.#sketch.add(Math.min(gapMicros, gapMicrosMax));
    this.#gapsUnwritten += 1;
    this.#gapsUntilLook -= 1;
    return this.#gapsUntilLook <= 0 && this.#look();
  }

  #look(): boolean {
    this.#gapsUntilLook = LOOK_GAPS;
    const before = this.#gapP99Micros;
    if (this.#sketch.weight < GAPS_MIN) {
      this.#gapsUntilLook = Math.ceil(GAPS_MIN - this.#sketch.weight);
      return false;
    }
    this.#gapP99Micros = this.#sketch.quantile(0.99);
    if (this.#gapP99Micros === before) return false;
    this.#isP99Unwritten = true;
    return true;
  }
}

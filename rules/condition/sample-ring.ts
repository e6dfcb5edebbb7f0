// HOT PATH: once for each sample of a metric that a window looks at
const SLOTS_FIRST = 8;

/**
 * Samples in order of time, the oldest out first. Grows by doubling up to its bound. A sample has the same
 * slot for as long as `capacity` stays the same.
 */
export class SampleRing {
  count = 0;
  readonly samplesMax: number;
  /** Of the oldest sample; counts up for ever, the slot is its lower bits. */
  #head = 0;
  #times = new Float64Array(SLOTS_FIRST);
  #values = new Float64Array(SLOTS_FIRST);

  /** @param samplesMax at least 1. */
  constructor(samplesMax: number) {
    this.samplesMax = samplesMax;
  }

  /** Slots that there are; a power of two. */
  get capacity(): number {
    return this.#times.length;
  }

  get isFull(): boolean {
    return this.count === this.samplesMax;
  }

  /** The slot of the sample with this age in samples; 0 is the oldest. */
  slot(index: number): number {
    return (this.#head + index) & (this.#times.length - 1);
  }

  timeAt(index: number): number {
    return this.#times[this.slot(index)] as number;
  }

  valueAt(index: number): number {
    return this.#values[this.slot(index)] as number;
  }

  /** Adds the newest. The ring must not be full. */
  push(timeMicros: number, value: number): void {
    if (this.count === this.#times.length) this.#grow();
    const slot = this.slot(this.count);
    this.#times[slot] = timeMicros;
    this.#values[slot] = value;
    this.count += 1;
  }

  /** Puts another value and time in place of the newest. */
  replaceNewest(timeMicros: number, value: number): void {
    const slot = this.slot(this.count - 1);
    this.#times[slot] = timeMicros;
    this.#values[slot] = value;
  }

  /** Takes the newest out; there must be one. */
  pop(): void {
    this.count -= 1;
  }

  /** Takes the oldest out; there must be one. */
  shift(): void {
    this.#head = (this.#head + 1) & 0x3fffffff;
    this.count -= 1;
  }

  clear(): void {
    this.count = 0;
  }

  #grow(): void {
    const times = new Float64Array(this.capacity * 2);
    const values = new Float64Array(this.capacity * 2);
    for (let index = 0; index < this.count; index += 1) {
      times[index] = this.timeAt(index);
      values[index] = this.valueAt(index);
    }
    this.#head = 0;
    this.#times = times;
    this.#values = values;
  }
}

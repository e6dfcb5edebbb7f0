const HOUR_MICROS = 3_600_000_000;
/** Readings of a span, as far as that can be arranged: some MB, and some tenths of a second. */
const READINGS_WANTED = 150_000;
const GROUP_MAX = 1000;
const SPAN_MICROS_MAX = 31 * 24 * HOUR_MICROS;
const SPAN_MICROS_MIN = 60_000_000;

/** How many devices, and how much of their time, are read at once; learned from what was read. */
export class SpanPlan {
  #groupSize = 50;
  #spanMicros = 6 * HOUR_MICROS;
  #mostRead = 0;

  get groupSize(): number {
    return this.#groupSize;
  }

  get spanMicros(): number {
    return this.#spanMicros;
  }

  /** Notes how many readings a span had. */
  read(readings: number): void {
    this.#mostRead = Math.max(this.#mostRead, readings);
    if (readings > 2 * READINGS_WANTED) {
      this.#spanMicros = Math.max(this.#spanMicros / 2, SPAN_MICROS_MIN);
    } else if (readings < READINGS_WANTED / 2) {
      this.#spanMicros = Math.min(this.#spanMicros * 2, SPAN_MICROS_MAX);
    }
  }

  /** Notes that a group of devices is done whose history has that length. */
  groupEnded(lengthMicros: number): void {
    if (this.#spanMicros >= lengthMicros && this.#mostRead < READINGS_WANTED / 2) {
      this.#groupSize = Math.min(this.#groupSize * 2, GROUP_MAX);
    } else if (this.#spanMicros < HOUR_MICROS) {
      this.#groupSize = Math.max(Math.floor(this.#groupSize / 2), 1);
    }
    this.#mostRead = 0;
  }
}

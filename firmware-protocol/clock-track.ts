// HOT PATH: once per message with a time of its own; see device-clock.ts
import { STEP_MICROS } from './time.ts';

/** A cell keeps the least delayed message of this long; microseconds. */
const CELL_MICROS = 480_000_000;
/** Cells that are kept: two hours of a device that sends often, and 16 messages of one that does not. */
const CELLS_MAX = 16;
/** A drift is told from a span and a number of cells in which delays do not hide it. */
const DRIFT_SPAN_MICROS = 2_400_000_000;
const DRIFT_CELLS_MIN = 6;
/** Quartz drifts by 100 millionths at most; more is taken for delays. */
const DRIFT_MAX = 0.00025;
/** A clock is known once this many messages in a row have moved the estimate by no more than that. */
const STEADY_MESSAGES = 8;
const STEADY_MICROS = 250_000;
/** And not before this long. */
const STEADY_SPAN_MICROS = 60_000_000;
/** Messages in a row that say that the clock was set forward: no delay explains it. */
const FORWARD_MESSAGES = 4;
/** That it was set back. Late messages look alike, but do not stay equally late for a minute. */
const BACK_MESSAGES = 8;
const BACK_SPREAD_MICROS = 5_000_000;
/** Our own clock was set back. */
const SET_BACK_MICROS = 10_000_000;

/** What outlives a {@link ClockTrack}. Times in microseconds, `drift` in microseconds per microsecond. */
export interface TrackState {
  readonly offsetMicros: number;
  readonly drift: number | null;
  readonly samples: number;
  readonly atMicros: number;
}

/**
 * Estimates how far one clock of a device is ahead of ours, from what its messages say at their receipt.
 * A message is never early and often late, so what counts is the least late of a while: the estimate is
 * the line over the last cells which no message lies above, and which is nearest to them in the mean. Its
 * slope is the drift. Memory is bounded by {@link CELLS_MAX}; a message costs some comparisons, and a
 * look at all cells every eight minutes.
 *
 * Messages that are off by more than ten seconds do not count until so many agree that the clock must
 * have been set: then the estimate starts anew with them.
 */
export class ClockTrack {
  /** Times and offsets of the cells, in turns, oldest first; the last one is still open. */
  #cells: number[] = [];
  #openedMicros = 0;
  #refMicros = 0;
  #offsetMicros = 0;
  #drift: number | null = null;
  #samples = 0;
  #steady = 0;
  #isFirm = false;
  #firstMicros = 0;
  #lastMicros = 0;
  #strays = 0;
  #strayFirstMicros = 0;
  #strayMinMicros = 0;
  #strayMaxMicros = 0;

  /** Messages since the clock was first seen, or was last set. */
  get samples(): number {
    return this.#samples;
  }

  /** Whether enough is known to correct times with: then it stays so until the clock is set. */
  get isFirm(): boolean {
    return this.#isFirm;
  }

  /** What there is to keep of a firm estimate; null while it is not. */
  get state(): TrackState | null {
    if (!this.#isFirm) return null;
    const atMicros = this.#lastMicros;
    const offsetMicros = this.offsetAt(atMicros);
    return { offsetMicros, drift: this.#drift, samples: this.#samples, atMicros };
  }

  /** Goes on from what an earlier one knew. */
  restore({ offsetMicros, drift, samples, atMicros }: TrackState): void {
    this.begin(offsetMicros, atMicros);
    this.#drift = drift;
    this.#samples = samples;
    this.#isFirm = true;
  }

  /** How far the clock is ahead at a time of ours, in microseconds; behind: below 0. */
  offsetAt(micros: number): number {
    return this.#offsetMicros + (this.#drift ?? 0) * (micros - this.#refMicros);
  }

  /**
   * Takes what a message says.
   * @param offsetMicros the device's clock less ours, late by the delay.
   * @returns false when it does not fit to what is known.
   */
  note(offsetMicros: number, receivedMicros: number): boolean {
    if (this.#samples === 0 || this.#lastMicros - receivedMicros > SET_BACK_MICROS) {
      this.begin(offsetMicros, receivedMicros);
      return true;
    }
    const above = offsetMicros - this.offsetAt(receivedMicros);
    if (above > STEP_MICROS || above < -STEP_MICROS) {
      return this.#noteStray(above > 0, offsetMicros, receivedMicros);
    }
    this.#strays = 0;
    this.#samples += 1;
    this.#lastMicros = receivedMicros;
    this.#steady = above > STEADY_MICROS ? 0 : this.#steady + 1;
    if (above > 0) this.#offsetMicros += above;
    this.#addToCell(offsetMicros, receivedMicros);
    if (!this.#isFirm) this.#becomeFirm();
    return true;
  }

  /** Forgets what was known: the clock was set, or the device has booted. */
  begin(offsetMicros: number, receivedMicros: number): void {
    this.#cells = [receivedMicros, offsetMicros];
    this.#openedMicros = receivedMicros;
    this.#refMicros = receivedMicros;
    this.#offsetMicros = offsetMicros;
    this.#drift = null;
    this.#samples = 1;
    this.#steady = 0;
    this.#isFirm = false;
    this.#firstMicros = receivedMicros;
    this.#lastMicros = receivedMicros;
    this.#strays = 0;
  }

  #becomeFirm(): void {
    const span = this.#lastMicros - this.#firstMicros;
    this.#isFirm = this.#steady >= STEADY_MESSAGES && span >= STEADY_SPAN_MICROS;
  }

  #addToCell(offsetMicros: number, receivedMicros: number): void {
    const cells = this.#cells;
    const last = cells.length - 2;
    if (receivedMicros - this.#openedMicros >= CELL_MICROS) {
      if (cells.length >= 2 * CELLS_MAX) cells.splice(0, 2);
      this.#openedMicros = receivedMicros;
      cells.push(receivedMicros, offsetMicros);
      this.#fit();
    } else if (offsetMicros >= (cells[last + 1] ?? -Infinity)) {
      cells[last] = receivedMicros;
      cells[last + 1] = offsetMicros;
    }
  }

  #noteStray(isAhead: boolean, offsetMicros: number, receivedMicros: number): boolean {
    const min = Math.min(this.#strayMinMicros, offsetMicros);
    const max = Math.max(this.#strayMaxMicros, offsetMicros);
    const spreadMax = isAhead ? STEP_MICROS : BACK_SPREAD_MICROS;
    if (this.#strays === 0 || max - min > spreadMax) {
      this.#strays = 1;
      this.#strayFirstMicros = receivedMicros;
      this.#strayMinMicros = offsetMicros;
      this.#strayMaxMicros = offsetMicros;
      return false;
    }
    this.#strays += 1;
    this.#strayMinMicros = min;
    this.#strayMaxMicros = max;
    const spanMicros = receivedMicros - this.#strayFirstMicros;
    const isSet = isAhead
      ? this.#strays >= FORWARD_MESSAGES
      : this.#strays >= BACK_MESSAGES && spanMicros >= STEADY_SPAN_MICROS;
    if (!isSet) return false;
    const strays = this.#strays;
    const firstMicros = this.#strayFirstMicros;
    this.begin(max, receivedMicros);
    this.#samples = strays;
    this.#steady = strays;
    this.#firstMicros = firstMicros;
    this.#becomeFirm();
    return true;
  }

  /** Lays the line over the cells: of the edges of their upper hull the one above their mean time. */
  #fit(): void {
    const cells = this.#cells;
    const last = cells.length - 2;
    this.#refMicros = cells[last] ?? 0;
    const span = this.#refMicros - (cells[0] ?? 0);
    // Until then the drift of before a restart, if any, is the best that is known.
    if (span >= DRIFT_SPAN_MICROS && cells.length >= 2 * DRIFT_CELLS_MIN) {
      this.#drift = Math.max(-DRIFT_MAX, Math.min(DRIFT_MAX, slopeOver(cells)));
    }
    const drift = this.#drift ?? 0;
    let offsetMicros = -Infinity;
    for (let at = 0; at <= last; at += 2) {
      const level = (cells[at + 1] ?? 0) + drift * (this.#refMicros - (cells[at] ?? 0));
      if (level > offsetMicros) offsetMicros = level;
    }
    this.#offsetMicros = offsetMicros;
  }
}

/** Slope of the edge of the upper hull above the mean time; `cells` as in {@link ClockTrack}. */
function slopeOver(cells: readonly number[]): number {
  const count = cells.length / 2;
  const timeOf = (index: number): number => cells[2 * index] ?? 0;
  const slopeFrom = (from: number, to: number): number =>
    ((cells[2 * to + 1] ?? 0) - (cells[2 * from + 1] ?? 0)) / (timeOf(to) - timeOf(from));
  let mean = 0;
  for (let index = 0; index < count; index += 1) mean += (timeOf(index) - timeOf(0)) / count;
  mean += timeOf(0);
  let from = 0;
  for (;;) {
    let to = from + 1;
    for (let other = to + 1; other < count; other += 1) {
      if (slopeFrom(from, other) >= slopeFrom(from, to)) to = other;
    }
    if (timeOf(to) >= mean || to >= count - 1) return slopeFrom(from, to);
    from = to;
  }
}

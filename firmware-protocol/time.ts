// HOT PATH: once per sample
import { CLOCK_SET_MICROS, QUALITY, type Quality } from './contract.ts';

/** How far a device's time may be from the time of receipt, in milliseconds. */
export interface TimeLimits {
  /** Older samples are refused as `too_old`. */
  ageMaxMs: number;
  /** A time further ahead is replaced by the time of receipt. */
  aheadMaxMs: number;
}

/** The time under which a sample is stored, in microseconds since 1970, and where it comes from. */
export interface ResolvedTime {
  timeMicros: number;
  quality: Quality;
}

/** What a sample says of its time; see `Sample` in `telemetry.ts`. */
export interface StatedTime {
  tsMicros: number | null;
  ageMs: number | null;
  fromLast: number;
}

/**
 * Decides under which time a sample is stored: `ts`, else receipt minus `age`, else receipt. A `ts`
 * before 2020 or too far ahead gives way to receipt (quality 3).
 *
 * Samples of one message that fall back to receipt are one microsecond apart, in their order, the last
 * at receipt: with equal times all but one would be dropped as copies.
 * @param receivedMicros integer microseconds since 1970; see {@link ReceiptClock}.
 */
export function resolveTime(
  sample: StatedTime,
  receivedMicros: number,
  limits: TimeLimits,
): ResolvedTime | 'too_old' {
  let timeMicros: number;
  let quality: Quality;
  if (sample.tsMicros !== null) {
    if (sample.tsMicros < CLOCK_SET_MICROS)
      return receipt(sample, receivedMicros, QUALITY.serverTs);
    timeMicros = sample.tsMicros;
    quality = QUALITY.device;
  } else if (sample.ageMs !== null) {
    timeMicros = receivedMicros - Math.round(sample.ageMs * 1000);
    quality = QUALITY.age;
  } else return receipt(sample, receivedMicros, QUALITY.receipt);
  if (timeMicros < receivedMicros - limits.ageMaxMs * 1000) return 'too_old';
  if (timeMicros > receivedMicros + limits.aheadMaxMs * 1000) {
    return receipt(sample, receivedMicros, QUALITY.serverTs);
  }
  return { timeMicros, quality };
}

/** A wall clock that is set back by less than this is waited for; microseconds. */
const SET_BACK_MICROS_MAX = 10_000_000;
/** What is added after each set-back beyond it, within a millisecond: no two of hundreds are near. */
const RESIDUE_STEP_MICROS = 389;

/**
 * Gives each message its time of receipt so that no two samples without a time of their own share one,
 * in whatever message they came. Follows the wall clock. When that is set back by up to ten seconds, it
 * stands nearly still until it is caught up with. When it is set back further, it starts anew from there,
 * between the milliseconds that were given out before.
 */
export class ReceiptClock {
  #lastMicros = 0;
  #residueMicros = 0;

  /**
   * @param nowMicros the wall clock, in integer microseconds since 1970.
   * @param samples how many samples the message has.
   * @returns the time of receipt: now, or as much later as the samples before it need.
   */
  next(nowMicros: number, samples: number): number {
    const free = this.#lastMicros + (samples > 1 ? samples : 1);
    const isSetBack = this.#lastMicros - nowMicros > SET_BACK_MICROS_MAX;
    if (isSetBack) this.#residueMicros = (this.#residueMicros + RESIDUE_STEP_MICROS) % 1000;
    const micros = nowMicros + this.#residueMicros;
    this.#lastMicros = free > micros && !isSetBack ? free : micros;
    return this.#lastMicros;
  }
}

function receipt(sample: StatedTime, receivedMicros: number, quality: Quality): ResolvedTime {
  return { timeMicros: receivedMicros - sample.fromLast, quality };
}

// HOT PATH: once per sample; 10 ns
import { CLOCK_SET_MICROS, MESSAGE_SAMPLES_MAX, QUALITY, type Quality } from './contract.ts';

/** How far a device's time may be from the time of receipt, in milliseconds. */
export interface TimeLimits {
  /** Older samples are refused as `too_old`. */
  ageMaxMs: number;
  /** A time further ahead is not believed. */
  aheadMaxMs: number;
  /** Samples from before it are refused as `too_old` as well, whenever they came. Microseconds. */
  notBeforeMicros?: number;
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
  upMs: number | null;
  fromLast: number;
}

/**
 * What is known of a device's clock when a message arrives; decides times together with the time of
 * receipt. It travels with a message that is stored to be read again.
 */
export interface TimeBasis {
  /** Microseconds by which its `ts` are known to be ahead of our clock; null: they are taken as they are. */
  readonly offsetMicros: number | null;
  /** Our clock when its `up` was 0, in microseconds since 1970. */
  readonly bootMicros: number | null;
}

/** Nothing is known. */
export const NO_BASIS: TimeBasis = Object.freeze({ offsetMicros: null, bootMicros: null });

/** The latest that the samples of a message say of each clock: from there the others keep their distances. */
export interface NewestTimes {
  /** The highest `ts` of a clock that was set, in microseconds. */
  readonly tsMicros: number | null;
  /** The highest `ts` of a clock that was not. */
  readonly unsetMicros: number | null;
  readonly upMs: number | null;
}

/** What all samples of a message have in common. */
export interface Arrival {
  /** Integer microseconds since 1970; see {@link ReceiptClock}. */
  readonly receivedMicros: number;
  readonly basis: TimeBasis;
  readonly newest: NewestTimes;
}

/** A difference between two clocks that may be jitter, and not a clock that was set; microseconds. */
export const STEP_MICROS = 10_000_000;
/** From here on a sample does not fire live rules; microseconds. */
const LATE_MICROS = 120_000_000;
/** A clock that was ahead by more than this and now seems right has been set right; microseconds. */
const TELLING_OFFSET_MICROS = 60_000_000;
/** How far behind and ahead a message of a right clock may be; microseconds. */
const RIGHT_BEHIND_MICROS = 30_000_000;
const RIGHT_AHEAD_MICROS = 2_000_000;

const NO_TIMES: NewestTimes = Object.freeze({ tsMicros: null, unsetMicros: null, upMs: null });

/** Reads the {@link NewestTimes} of a message. */
export function newestTimes(samples: readonly StatedTime[]): NewestTimes {
  let newest = samples[0] === undefined ? NO_TIMES : timesOf(samples[0]);
  for (let index = 1; index < samples.length; index += 1) {
    const sample = samples[index];
    if (sample !== undefined) newest = laterOf(newest, sample);
  }
  return newest;
}

function timesOf({ tsMicros, upMs }: StatedTime): NewestTimes {
  if (tsMicros === null) return upMs === null ? NO_TIMES : { tsMicros, unsetMicros: null, upMs };
  if (tsMicros < CLOCK_SET_MICROS) return { tsMicros: null, unsetMicros: tsMicros, upMs };
  return { tsMicros, unsetMicros: null, upMs };
}

/** The same object while nothing is later. */
function laterOf(newest: NewestTimes, sample: StatedTime): NewestTimes {
  const { tsMicros, upMs } = sample;
  const isUnset = tsMicros !== null && tsMicros < CLOCK_SET_MICROS;
  const known = isUnset ? newest.unsetMicros : newest.tsMicros;
  const isLater = tsMicros !== null && (known === null || tsMicros > known);
  const isLaterUp = upMs !== null && (newest.upMs === null || upMs > newest.upMs);
  if (!isLater && !isLaterUp) return newest;
  return {
    tsMicros: isLater && !isUnset ? tsMicros : newest.tsMicros,
    unsetMicros: isLater && isUnset ? tsMicros : newest.unsetMicros,
    upMs: isLaterUp ? upMs : newest.upMs,
  };
}

/**
 * Decides under which time a sample is stored: `ts`, else receipt minus `age`, else the boot plus `up`, else
 * receipt. Pure: a message that is read again with the same {@link Arrival} gets the same times.
 *
 * A `ts` of a clock that is known to be ahead is corrected (quality 4). One before 2020, or too far ahead
 * while nothing is known of the clock, gives way to what comes next in that order; and where nothing
 * does, the newest of the message is dated to receipt and the others keep their distances to it
 * (quality 3). So do samples with `up` while the boot is not known.
 *
 * Samples that fall back to receipt, or count from it, get different microseconds: within a message by
 * their place, and among messages by the time of receipt, for 500 ms around. With equal times all but
 * one would be dropped as copies.
 */
export function resolveTime(
  sample: StatedTime,
  arrival: Arrival,
  limits: TimeLimits,
): ResolvedTime | 'too_old' {
  const { tsMicros, ageMs, upMs } = sample;
  if (tsMicros === null && ageMs === null && upMs === null) {
    return { timeMicros: arrival.receivedMicros - sample.fromLast, quality: QUALITY.receipt };
  }
  const resolved =
    (tsMicros === null ? null : resolveTs(tsMicros, arrival, limits)) ??
    (ageMs === null ? null : resolveAge(ageMs, sample, arrival, limits)) ??
    (upMs === null ? null : resolveUp(upMs, sample, arrival)) ??
    resolveFromNewest(sample, arrival, limits);
  const oldest = arrival.receivedMicros - limits.ageMaxMs * 1000;
  const { notBeforeMicros = oldest } = limits;
  return resolved.timeMicros < Math.max(oldest, notBeforeMicros) ? 'too_old' : resolved;
}

/** Whether a sample comes too late to fire live rules: more than two minutes after its time. */
export function isLate(timeMicros: number, receivedMicros: number): boolean {
  return receivedMicros - timeMicros > LATE_MICROS;
}

/** Null when the `ts` cannot be right. */
function resolveTs(
  tsMicros: number,
  { receivedMicros, basis, newest }: Arrival,
  { ageMaxMs, aheadMaxMs }: TimeLimits,
): ResolvedTime | null {
  if (tsMicros < CLOCK_SET_MICROS) return null;
  const newestMicros = newest.tsMicros ?? tsMicros;
  const { offsetMicros } = basis;
  if (offsetMicros !== null && isOffsetBy(offsetMicros, newestMicros, receivedMicros)) {
    return { timeMicros: tsMicros - offsetMicros, quality: QUALITY.corrected };
  }
  const latest = receivedMicros + aheadMaxMs * 1000;
  // Where only some are too far ahead, the others are of the same clock, unless they are far apart.
  const isPlausible = newestMicros <= latest || newestMicros - tsMicros > ageMaxMs * 1000;
  return tsMicros <= latest && isPlausible
    ? { timeMicros: tsMicros, quality: QUALITY.device }
    : null;
}

/** Whether what is known of the clock explains a message: it may be late, but not of the future. */
function isOffsetBy(offsetMicros: number, newestMicros: number, receivedMicros: number): boolean {
  const aheadMicros = newestMicros - receivedMicros;
  if (aheadMicros - offsetMicros > STEP_MICROS) return false;
  const looksRight = aheadMicros < RIGHT_AHEAD_MICROS && aheadMicros > -RIGHT_BEHIND_MICROS;
  return !(looksRight && offsetMicros > TELLING_OFFSET_MICROS);
}

/** Null when it leads too far ahead. */
function resolveAge(
  ageMs: number,
  { fromLast }: StatedTime,
  { receivedMicros }: Arrival,
  { aheadMaxMs }: TimeLimits,
): ResolvedTime | null {
  const timeMicros = backFrom(receivedMicros, Math.round(ageMs * 1000), fromLast);
  if (timeMicros > receivedMicros + aheadMaxMs * 1000) return null;
  return { timeMicros, quality: QUALITY.age };
}

function resolveUp(
  upMs: number,
  { fromLast }: StatedTime,
  { receivedMicros, basis: { bootMicros }, newest }: Arrival,
): ResolvedTime {
  const newestMs = newest.upMs ?? upMs;
  if (bootMicros !== null && bootMicros + newestMs * 1000 <= receivedMicros + STEP_MICROS) {
    return { timeMicros: bootMicros + Math.round(upMs * 1000), quality: QUALITY.age };
  }
  const distance = Math.round((newestMs - upMs) * 1000);
  return { timeMicros: backFrom(receivedMicros, distance, fromLast), quality: QUALITY.age };
}

/** What a clock says that is wrong by nobody knows how much: its differences are right. */
function resolveFromNewest(
  { tsMicros, fromLast }: StatedTime,
  { receivedMicros, newest }: Arrival,
  { ageMaxMs }: TimeLimits,
): ResolvedTime {
  const quality = QUALITY.serverTs;
  const ts = tsMicros ?? 0;
  const distance = ((ts < CLOCK_SET_MICROS ? newest.unsetMicros : newest.tsMicros) ?? ts) - ts;
  if (distance === 0 || distance > ageMaxMs * 1000) {
    return { timeMicros: receivedMicros - fromLast, quality };
  }
  return { timeMicros: backFrom(receivedMicros, distance, fromLast), quality };
}

/** Prime, so that consecutive milliseconds get different microseconds, far from each other. */
const TICK_STEP_MICROS = 389;

/** That much before the millisecond of receipt, within whose next thousand microseconds all are apart. */
function backFrom(receivedMicros: number, backMicros: number, fromLast: number): number {
  const receivedMs = Math.floor(receivedMicros / 1000);
  const below = receivedMicros - receivedMs * 1000;
  const tick = ((receivedMs * TICK_STEP_MICROS + below) % 500) + MESSAGE_SAMPLES_MAX - 1;
  return receivedMs * 1000 - backMicros + tick - fromLast;
}

/** A wall clock that is set back by less than this is waited for; microseconds. */
const SET_BACK_MICROS_MAX = 10_000_000;
/** What is added after each set-back beyond it, within a millisecond: no two of hundreds are near. */
const RESIDUE_STEP_MICROS = 389;

/**
 * Where between the milliseconds a {@link ReceiptClock} begins: another place for each start of the
 * program, and for each time that the wall clock was set. Of a thousand starts two may have the same.
 * @param startedMs when the program began, by the wall clock as it is now: wall clock less monotonic clock.
 */
export function firstResidue(startedMs: number): number {
  const seconds = Math.floor(startedMs / 1000) | 0;
  const mixed = Math.imul(seconds ^ (seconds >>> 15), 0x2c1b3c6d);
  return ((mixed ^ (mixed >>> 13)) >>> 0) % 1000;
}

/**
 * Gives each message its time of receipt so that no two samples without a time of their own share one,
 * in whatever message they came. Follows the wall clock. When that is set back by up to ten seconds, it
 * stands nearly still until it is caught up with. When it is set back further, it starts anew from there,
 * between the milliseconds that were given out before.
 */
export class ReceiptClock {
  #lastMicros = 0;
  #residueMicros: number;

  /**
   * @param residueMicros 0 to 999, added to the wall clock; see {@link firstResidue}. What was given out
   * before a restart lies at another place, should the wall clock have been set back meanwhile.
   */
  constructor(residueMicros = 0) {
    this.#residueMicros = residueMicros;
  }

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

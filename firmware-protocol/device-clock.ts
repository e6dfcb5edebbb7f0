// HOT PATH: once per message with `ts` or `up`
import { ClockTrack } from './clock-track.ts';
import { NO_BASIS, STEP_MICROS, type NewestTimes, type TimeBasis } from './time.ts';

/** Times are corrected of a clock that is ahead by more than this, and until it is by less than that. */
const CORRECT_ABOVE_MICROS = 2_000_000;
const CORRECT_BELOW_MICROS = 1_000_000;
/** What times are corrected by stays the same until it is this wrong: a message sent again keeps its times. */
const HOLD_MICROS = 250_000;
/** Prime; see {@link holdAt}. */
const RESIDUE_STEP = 389;
/** A clock is stored again after this time, and when what times are corrected by has changed. */
const STORE_MICROS = 600_000_000;

/** What is stored of a device's clock, as in the table `device_clock`. */
export interface StoredClock {
  /**
   * Milliseconds that its `ts` are ahead of our clock, at `measuredMicros`. Has a fraction, of three
   * decimals, when times are corrected by it.
   */
  readonly offsetMs: number;
  /** How fast the offset grows, in millionths; null while too little is known. */
  readonly driftPpm: number | null;
  /** Messages that say so. */
  readonly samples: number;
  readonly measuredMicros: number;
}

/** How a device's clock is, as far as it is known. */
export type ClockState = 'unknown' | 'right' | 'ahead' | 'behind';

/** A clock that is further behind is called so; microseconds. Half a minute may be delay. */
const BEHIND_MICROS = 60_000_000;

/**
 * What is known of the two clocks of a device, `ts` and `up`, from its live messages; see
 * {@link ClockTrack}. Only a `ts` clock that is ahead is corrected: no reading comes from the future. One
 * that is behind cannot be told from messages that come late, and is only reported.
 *
 * What `up` counts from is known from a `hello` on, or after a minute of messages; and forgotten where a
 * message may be of another boot. `up` that was stored under the boot before it would be taken for a
 * copy of that boot's readings, and be lost.
 */
export class DeviceClock {
  readonly #ts = new ClockTrack();
  #up: ClockTrack | null = null;
  #highestUpMs = 0;
  /** Whether the device has said `hello` with `up` over this connection. */
  #isGreeted = false;
  #basis: TimeBasis = NO_BASIS;
  #storedMicros = -Infinity;
  #storedOffset: number | null = null;

  /** What is known now. The same object until it changes. */
  get basis(): TimeBasis {
    return this.#basis;
  }

  /** How the clock of the `ts` is. */
  get state(): ClockState {
    const known = this.#ts.state;
    if (known === null) return 'unknown';
    if (this.#basis.offsetMicros !== null) return 'ahead';
    return known.offsetMicros < -BEHIND_MICROS ? 'behind' : 'right';
  }

  /** What is to be stored; null while too little is known of the clock of the `ts`. */
  get stored(): StoredClock | null {
    const known = this.#ts.state;
    if (known === null) return null;
    const { offsetMicros } = this.#basis;
    return {
      offsetMs: offsetMicros === null ? Math.round(known.offsetMicros / 1000) : offsetMicros / 1000,
      driftPpm: known.drift === null ? null : known.drift * 1e6,
      samples: known.samples,
      measuredMicros: known.atMicros,
    };
  }

  /** Whether there is something new to store. */
  get isUnstored(): boolean {
    const known = this.#ts.state;
    if (known === null) return false;
    const hasChanged = this.#basis.offsetMicros !== this.#storedOffset;
    return hasChanged || known.atMicros - this.#storedMicros > STORE_MICROS;
  }

  /** Notes that `stored` was written. */
  markStored({ offsetMs, measuredMicros }: StoredClock): void {
    this.#storedMicros = measuredMicros;
    const offsetMicros = Math.round(offsetMs * 1000);
    this.#storedOffset = this.#basis.offsetMicros === offsetMicros ? offsetMicros : null;
  }

  /** Goes on from what was stored; to be called before the first message. */
  restore(stored: StoredClock): void {
    const offsetMicros = Math.round(stored.offsetMs * 1000);
    const drift = stored.driftPpm === null ? null : stored.driftPpm / 1e6;
    const { samples, measuredMicros } = stored;
    this.#ts.restore({ offsetMicros, drift, samples, atMicros: measuredMicros });
    if (isCorrection(stored.offsetMs)) this.#holdOffset(offsetMicros);
    this.markStored(stored);
  }

  /** Notes a new connection: the device may have booted since. */
  connected(): void {
    this.#isGreeted = false;
  }

  /** Takes the `up` of a `hello`, in milliseconds. Never of an old one: it says when the device has booted. */
  greet(upMs: number, receivedMicros: number): void {
    this.#isGreeted = true;
    const upMicros = Math.round(upMs * 1000) - receivedMicros;
    const track = (this.#up ??= new ClockTrack());
    const isSameBoot =
      track.samples > 0 &&
      upMs >= this.#highestUpMs &&
      Math.abs(upMicros - track.offsetAt(receivedMicros)) <= STEP_MICROS;
    if (isSameBoot) track.note(upMicros, receivedMicros);
    else {
      track.begin(upMicros, receivedMicros);
      this.#highestUpMs = 0;
      this.#holdBoot(null);
    }
    this.#highestUpMs = Math.max(this.#highestUpMs, upMs);
    this.#followUp(track, receivedMicros);
  }

  /**
   * Takes what a live message says, whether alone or as a batch. To be called once for each, in their order.
   * @returns what decides its times.
   */
  observe(newest: NewestTimes, receivedMicros: number): TimeBasis {
    const { tsMicros, upMs } = newest;
    if (tsMicros !== null) this.#observeTs(tsMicros, receivedMicros);
    if (upMs !== null) this.#observeUp(upMs, receivedMicros);
    return this.#basis;
  }

  #observeTs(tsMicros: number, receivedMicros: number): void {
    const track = this.#ts;
    track.note(tsMicros - receivedMicros, receivedMicros);
    const held = this.#basis.offsetMicros;
    const isHeld = held !== null;
    if (!track.isFirm) {
      if (isHeld) this.#holdOffset(null);
      return;
    }
    const offset = track.offsetAt(receivedMicros);
    if (offset < CORRECT_BELOW_MICROS || (!isHeld && offset <= CORRECT_ABOVE_MICROS)) {
      if (isHeld) this.#holdOffset(null);
    } else if (held === null || Math.abs(offset - held) > HOLD_MICROS) {
      this.#holdOffset(holdAt(offset, held ?? 0));
    }
  }

  #observeUp(upMs: number, receivedMicros: number): void {
    const upMicros = Math.round(upMs * 1000) - receivedMicros;
    const track = (this.#up ??= new ClockTrack());
    if (track.samples > 0 && !this.#isGreeted) {
      const behind = track.offsetAt(receivedMicros) - upMicros;
      if (behind > STEP_MICROS || upMs < this.#highestUpMs) {
        track.begin(upMicros, receivedMicros);
        this.#highestUpMs = upMs;
        this.#holdBoot(null);
        return;
      }
    }
    track.note(upMicros, receivedMicros);
    this.#highestUpMs = Math.max(this.#highestUpMs, upMs);
    this.#followUp(track, receivedMicros);
  }

  #followUp(track: ClockTrack, receivedMicros: number): void {
    const { bootMicros } = this.#basis;
    if (!this.#isGreeted && !track.isFirm && bootMicros === null) return;
    const boot = -track.offsetAt(receivedMicros);
    if (bootMicros === null || Math.abs(boot - bootMicros) > HOLD_MICROS) {
      this.#holdBoot(holdAt(boot, bootMicros ?? receivedMicros));
    }
  }

  #holdOffset(offsetMicros: number | null): void {
    this.#basis = basisOf(offsetMicros, this.#basis.bootMicros);
  }

  #holdBoot(bootMicros: number | null): void {
    if (bootMicros !== this.#basis.bootMicros) {
      this.#basis = basisOf(this.#basis.offsetMicros, bootMicros);
    }
  }
}

/** Whether times are corrected by a stored offset. */
export function isCorrection(offsetMs: number): boolean {
  return Math.round(offsetMs * 1000) % 1000 !== 0;
}

function basisOf(offsetMicros: number | null, bootMicros: number | null): TimeBasis {
  if (offsetMicros === null && bootMicros === null) return NO_BASIS;
  return { offsetMicros, bootMicros };
}

/**
 * An offset in whole milliseconds and a number of microseconds that neither zero nor the one before had:
 * times in milliseconds that are corrected by one of them never meet those of another.
 */
function holdAt(micros: number, previousMicros: number): number {
  const previous = ((previousMicros % 1000) + 1000) % 1000;
  const residue = (previous + RESIDUE_STEP) % 1000 || RESIDUE_STEP;
  return Math.floor(micros / 1000) * 1000 + residue;
}

import type { TimeLimits } from '../firmware-protocol/time.ts';
import { BootSequence } from './boot-sequence.ts';
import type { DeviceLane } from './device-lane.ts';
import type { SharedRate } from './shared-rate.ts';

/** The way into ingest of one connection of a device, or of one origin of what is fed in again. */
export class Lane {
  readonly device: DeviceLane;
  /** Rates that it has in common with other devices, in the order in which they are asked. */
  readonly sharedRates: readonly SharedRate[];
  /** Whether this connection was told that its clock is wrong. */
  isClockReported = false;
  /** Whether the numbers of its messages are held against those that are stored. */
  isNumbered = true;
  /** Whether its messages come as they are sent, and so tell how the clock of the device is. */
  isLive = true;
  /** Whether its messages come out of the spool. */
  isOfSpool = false;
  /** Null: those of the pipeline. */
  timeLimits: TimeLimits | null = null;
  #boot: number | null = null;
  #sequence: BootSequence | null = null;

  constructor(device: DeviceLane, sharedRates: readonly SharedRate[]) {
    this.device = device;
    this.sharedRates = sharedRates;
  }

  /** The boot that messages belong to; null when the device has named none. */
  get boot(): number | null {
    return this.#boot;
  }

  /** Names the boot that messages from now on belong to. */
  setBoot(boot: number): void {
    if (boot === this.#boot) return;
    this.#boot = boot;
    this.#sequence = null;
  }

  /** The numbers of the messages of this connection. To be asked once the device is loaded. */
  get sequence(): BootSequence {
    this.#sequence ??= this.#findSequence();
    return this.#sequence;
  }

  /** See `Ingest.storedSequence`. */
  get storedSequence(): number | null {
    if (!this.device.isLoaded || this.sequence.hasForgotten) return null;
    return this.sequence.committed.contiguous;
  }

  #findSequence(): BootSequence {
    return this.#boot === null
      ? new BootSequence(this.device, null)
      : this.device.sequenceOf(this.#boot);
  }
}

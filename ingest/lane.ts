import { BootSequence } from './boot-sequence.ts';
import type { DeviceLane } from './device-lane.ts';
import type { SharedRate } from './shared-rate.ts';

/** The way into ingest of one connection of a device. */
export class Lane {
  readonly device: DeviceLane;
  /** Rates that it has in common with other devices, in the order in which they are asked. */
  readonly sharedRates: readonly SharedRate[];
  /** Whether this connection was told that its clock is wrong. */
  isClockReported = false;
  #boot: number | null = null;
  #sequence: BootSequence | null = null;

  constructor(device: DeviceLane, sharedRates: readonly SharedRate[]) {
    this.device = device;
    this.sharedRates = sharedRates;
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
    return this.device.isLoaded ? this.sequence.committed.contiguous : null;
  }

  /** Asked once for each boot: a message of an older connection must not bring its boot back. */
  #findSequence(): BootSequence {
    const { device } = this;
    if (this.#boot === null) return new BootSequence(device, null);
    if (device.bootSequence?.boot !== this.#boot) {
      device.bootSequence = new BootSequence(device, this.#boot);
    }
    return device.bootSequence;
  }
}

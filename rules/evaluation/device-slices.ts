import type { LiveDevice } from './live-device.ts';

/** Nothing else is held up for longer than this at a time. */
export const SLICE_MS = 10;

/** Devices that something is to be done with: each once, a few in one turn of the event loop. */
export class DeviceSlices {
  readonly #devices = new Set<LiveDevice>();
  readonly #take: (device: LiveDevice) => void;
  readonly #mayGoOn: () => boolean;
  #isPlanned = false;
  #isStopped = false;

  /**
   * @param take what is to be done with a device; may add it once more. Must not throw.
   * @param mayGoOn asked before each; when it says no, the others wait for the next call.
   */
  constructor(take: (device: LiveDevice) => void, mayGoOn: () => boolean = () => true) {
    this.#take = take;
    this.#mayGoOn = mayGoOn;
  }

  /** Those that wait. */
  get all(): Iterable<LiveDevice> {
    return this.#devices;
  }

  add(device: LiveDevice): void {
    this.#devices.add(device);
  }

  /** @returns whether it waited. */
  delete(device: LiveDevice): boolean {
    return this.#devices.delete(device);
  }

  /** Begins in the next turn. */
  runLater(): void {
    if (this.#isPlanned || this.#isStopped || this.#devices.size === 0) return;
    this.#isPlanned = true;
    setImmediate(() => {
      this.#isPlanned = false;
      this.run();
    });
  }

  /** Begins at once. */
  run(): void {
    if (this.#isStopped) return;
    const startedMs = performance.now();
    for (const device of this.#devices) {
      if (!this.#mayGoOn()) return;
      this.#devices.delete(device);
      this.#take(device);
      if (performance.now() - startedMs > SLICE_MS) break;
    }
    this.runLater();
  }

  /** Does nothing more. */
  stop(): void {
    this.#isStopped = true;
  }
}

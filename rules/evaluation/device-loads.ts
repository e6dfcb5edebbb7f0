import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';
import { reasonOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { DeviceLoader, LoadedDevice, LoadRequest } from './device-load.ts';
import { SLICE_MS } from './device-slices.ts';
import type { LiveDevice } from './live-device.ts';
import type { RuleCounters } from './metrics.ts';

/** What {@link DeviceLoads} needs. */
export interface DeviceLoadsDeps {
  readonly loader: DeviceLoader;
  readonly requestOf: (device: LiveDevice) => LoadRequest;
  /** Null: there is no such device. Must not throw. */
  readonly onLoaded: (
    device: LiveDevice,
    loaded: LoadedDevice | null,
    request: LoadRequest,
  ) => void;
  readonly counters: RuleCounters;
  readonly log: Logger;
}

const DEVICES_MAX = 500;
const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 5000;

/** Loads devices, many at a time, in the order in which they were wanted; tries again until it has them. */
export class DeviceLoads {
  readonly #deps: DeviceLoadsDeps;
  readonly #wanted = new Set<LiveDevice>();
  readonly #end = new AbortController();
  readonly #underWay = new Set<LiveDevice>();
  #ended: Promise<void> = Promise.resolve();
  #isRunning = false;
  #failures = 0;

  constructor(deps: DeviceLoadsDeps) {
    this.#deps = deps;
  }

  /** Devices that wait, or are being loaded. */
  get all(): LiveDevice[] {
    return [...this.#underWay, ...this.#wanted];
  }

  /** Loads a device, for the first time or again. One that is under way is loaded once more. */
  want(device: LiveDevice): void {
    device.isLoading = true;
    this.#wanted.add(device);
    if (this.#isRunning || this.#end.signal.aborted) return;
    this.#isRunning = true;
    this.#ended = this.#run();
  }

  /** Loads nothing more. Resolves when nothing is under way. */
  async stop(): Promise<void> {
    this.#end.abort();
    await this.#ended;
  }

  async #run(): Promise<void> {
    const { signal } = this.#end;
    // In the next turn: a fleet connects at once.
    await nextTurn();
    while (this.#wanted.size > 0 && !signal.aborted) {
      const devices = this.#takeWanted();
      if (await this.#load(devices)) continue;
      for (const device of devices) this.#wanted.add(device);
      this.#underWay.clear();
      const longestMs = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** this.#failures);
      const ms = longestMs * (0.5 + Math.random() / 2);
      await delay(ms, undefined, { signal }).catch(() => undefined);
    }
    this.#isRunning = false;
  }

  #takeWanted(): LiveDevice[] {
    for (const device of this.#wanted) {
      this.#wanted.delete(device);
      if (this.#underWay.add(device).size === DEVICES_MAX) break;
    }
    return [...this.#underWay];
  }

  async #load(devices: readonly LiveDevice[]): Promise<boolean> {
    const { loader, requestOf, counters, log } = this.#deps;
    const requests = devices.map(requestOf);
    try {
      const loaded = await loader.load(requests);
      this.#failures = 0;
      await this.#giveOut(devices, requests, loaded);
      return true;
    } catch (err) {
      counters.loadFailures += 1;
      if (this.#failures === 0) log.warn({ err: reasonOf(err) }, 'devices of rules not loaded');
      this.#failures = Math.min(this.#failures + 1, 16);
      return false;
    }
  }

  /** Some in one turn: what waits of each is evaluated then. */
  async #giveOut(
    devices: readonly LiveDevice[],
    requests: readonly LoadRequest[],
    loaded: readonly LoadedDevice[],
  ): Promise<void> {
    const byId = new Map(loaded.map((each) => [each.device.deviceId, each]));
    let startedMs = performance.now();
    for (const [index, device] of devices.entries()) {
      const request = requests[index];
      if (request === undefined) continue;
      this.#underWay.delete(device);
      device.isLoading = this.#wanted.has(device);
      if (device.isLoading) continue;
      this.#deps.onLoaded(device, byId.get(device.deviceId) ?? null, request);
      if (performance.now() - startedMs < SLICE_MS) continue;
      await nextTurn();
      startedMs = performance.now();
    }
  }
}

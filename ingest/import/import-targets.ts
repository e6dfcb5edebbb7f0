import { DEVICE_NAME } from '../../firmware-protocol/contract.ts';
import type { Lane } from '../lane.ts';
import type { ReplayWayIn } from '../replay-port.ts';
import { LineRefusal, type ReadLine } from './import-line.ts';
import type { ImportStore } from './import-store.ts';

/** A device of the file. */
export interface Target {
  readonly lane: Lane;
  readonly deviceId: number;
  /** Lines of it that are on their way. */
  onWay: number;
}

/** What {@link ImportTargets} works with. */
export interface TargetParts {
  readonly ingest: ReplayWayIn;
  readonly store: Pick<ImportStore, 'findDevices'>;
  /** Oldest reading, in ms before its import. */
  readonly ageMaxMs: number;
}

/** Devices whose lanes are kept open, and as many names that are known to be none. */
export const TARGETS_MAX = 10_000;

/**
 * The devices that lines of one import name. Those of a slice of lines are looked up together: a file may
 * name another one in each line. Beyond {@link TARGETS_MAX} those go that were not used for longest.
 */
export class ImportTargets {
  readonly #organizationId: number;
  readonly #parts: TargetParts;
  /** In the order of their last use. */
  readonly #known = new Map<string, Target>();
  readonly #unknown = new Map<string, LineRefusal>();

  constructor(organizationId: number, parts: TargetParts) {
    this.#organizationId = organizationId;
    this.#parts = parts;
  }

  /** Looks up what lines name, at once. @throws {StoreUnavailableError} */
  async find(lines: readonly ReadLine[]): Promise<void> {
    const missing = new Set<string>();
    for (const { outcome } of lines) {
      if (outcome === null || outcome instanceof LineRefusal) continue;
      if (this.get(outcome.device) === null) missing.add(outcome.device);
    }
    if (missing.size > 0) await this.#findAll([...missing]);
  }

  /** The device of this name, or why its line is refused; null when it has to be looked up. */
  get(device: string): Target | LineRefusal | null {
    if (!DEVICE_NAME.test(device)) return unknownDevice(device);
    const target = this.#known.get(device);
    if (target !== undefined) {
      this.#known.delete(device);
      this.#known.set(device, target);
      return target;
    }
    const refusal = this.#unknown.get(device);
    if (refusal === undefined) return null;
    this.#unknown.delete(device);
    this.#unknown.set(device, refusal);
    return refusal;
  }

  /** As {@link get}, of one that was deleted since. @throws {StoreUnavailableError} */
  async lookUp(device: string): Promise<Target | LineRefusal> {
    await this.#findAll([device]);
    return this.get(device) ?? unknownDevice(device);
  }

  /** The device is gone: its name is looked up anew. */
  forget(deviceId: number): void {
    for (const [device, target] of this.#known) {
      if (target.deviceId === deviceId) this.#drop(device, target);
    }
  }

  /** Gives back the lanes. */
  close(): void {
    for (const [device, target] of this.#known) this.#drop(device, target);
    this.#unknown.clear();
  }

  async #findAll(devices: readonly string[]): Promise<void> {
    const { ingest, store, ageMaxMs } = this.#parts;
    const found = await store.findDevices(this.#organizationId, devices);
    this.#makeRoom(found.size, devices.length - found.size);
    for (const device of devices) {
      const deviceId = found.get(device);
      if (deviceId === undefined) this.#unknown.set(device, unknownDevice(device));
      else {
        const lane = ingest.openReplay(this.#organizationId, deviceId, { ageMaxMs });
        this.#known.set(device, { lane, deviceId, onWay: 0 });
      }
    }
  }

  #makeRoom(known: number, unknown: number): void {
    let excess = this.#unknown.size + unknown - TARGETS_MAX;
    for (const device of this.#unknown.keys()) {
      if (excess <= 0) break;
      this.#unknown.delete(device);
      excess -= 1;
    }
    excess = this.#known.size + known - TARGETS_MAX;
    for (const [device, target] of this.#known) {
      if (excess <= 0) break;
      // Lines on their way need theirs; there are no more of them than the window has.
      if (target.onWay > 0) continue;
      this.#drop(device, target);
      excess -= 1;
    }
  }

  #drop(device: string, { lane }: Target): void {
    this.#known.delete(device);
    this.#parts.ingest.closeReplay(lane);
  }
}

function unknownDevice(device: string): LineRefusal {
  return new LineRefusal('unknown_device', `there is no device ${JSON.stringify(device)}`);
}

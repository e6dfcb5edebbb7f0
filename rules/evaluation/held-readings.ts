import type { StoredReading } from './device-load.ts';
import type { Held, LiveDevice } from './live-device.ts';
import type { RuleCounters } from './metrics.ts';

/** All devices may hold so many times what one may. */
const TOTAL_FACTOR = 100;

/**
 * What waits to be evaluated: for its device to be loaded, or for steps of alerts to be written. In order
 * of arrival for each device. Beyond the bounds the oldest samples of the device are left out, and counted:
 * they are stored, so that a window that is loaded later has them.
 */
export class HeldReadings {
  readonly #deviceMax: number;
  readonly #counters: RuleCounters;
  #count = 0;

  constructor(deviceMax: number, counters: RuleCounters) {
    this.#deviceMax = deviceMax;
    this.#counters = counters;
  }

  /** Readings, events and changes that wait, of all devices. */
  get count(): number {
    return this.#count;
  }

  /** The bound of {@link count}. */
  get max(): number {
    return this.#deviceMax * TOTAL_FACTOR;
  }

  /** Has something wait behind what waits of the device already. */
  hold(device: LiveDevice, item: Held): void {
    (device.held ??= []).push(item);
    this.#add(device, sizeOf(item));
    while (device.held.length > 1 && this.#isOver(device)) this.#leaveOut(device, device.held);
  }

  /**
   * Gives out what waits of a device, in order, for as long as `isReady`.
   * @returns whether nothing waits any more.
   */
  release(device: LiveDevice, isReady: () => boolean, take: (item: Held) => void): boolean {
    const { held } = device;
    if (held === null) return true;
    let taken = 0;
    for (const item of held) {
      if (!isReady()) break;
      taken += 1;
      this.#add(device, -sizeOf(item));
      take(item);
    }
    device.held = taken === held.length ? null : held.slice(taken);
    return device.held === null;
  }

  /** Lets go of all that waits of a device. */
  drop(device: LiveDevice): void {
    this.#add(device, -device.heldCount);
    device.held = null;
  }

  #isOver({ heldCount }: LiveDevice): boolean {
    return heldCount > this.#deviceMax || this.#count > this.max;
  }

  /** The first sample: changes of connection and silence are kept, there are few of them. */
  #leaveOut(device: LiveDevice, held: Held[]): void {
    const first = held.findIndex(({ kind }) => kind === 'sample');
    const [item] = held.splice(Math.max(first, 0), 1);
    const size = item === undefined ? 0 : sizeOf(item);
    this.#add(device, -size);
    this.#counters.leftOut.held += size;
  }

  #add(device: LiveDevice, size: number): void {
    device.heldCount += size;
    this.#count += size;
  }
}

/** When the first sample or event that waits of a device was received; Infinity when none does. */
export function firstReceivedMicros({ held }: LiveDevice): number {
  const first = held?.find(isReceived);
  return first?.receivedMicros ?? Infinity;
}

/** The earliest event time of a sample or an event that waits; Infinity when none does. */
export function earliestMicros({ held }: LiveDevice): number {
  let earliest = Infinity;
  for (const item of held ?? []) {
    if (item.kind === 'sample') earliest = Math.min(earliest, item.timeMicros);
    else if (item.kind === 'event') earliest = Math.min(earliest, item.event.timeMicros);
  }
  return earliest;
}

/** Event time of the first sample that waits; Infinity when none does. */
export function firstTimeMicros({ held }: LiveDevice): number {
  for (const item of held ?? []) if (item.kind === 'sample') return item.timeMicros;
  return Infinity;
}

/**
 * History without the readings that wait: they were stored while it was read, and are evaluated, which
 * history is not.
 */
export function withoutHeld(
  history: readonly StoredReading[],
  { held }: LiveDevice,
): readonly StoredReading[] {
  const waiting = new Set<string>();
  for (const item of held ?? []) {
    if (item.kind !== 'sample') continue;
    for (const { metric } of item.readings) waiting.add(`${metric} ${item.timeMicros}`);
  }
  if (waiting.size === 0) return history;
  return history.filter(({ metric, timeMicros }) => !waiting.has(`${metric} ${timeMicros}`));
}

function isReceived(item: Held): item is Extract<Held, { receivedMicros: number }> {
  return item.kind === 'sample' || item.kind === 'event';
}

function sizeOf(item: Held): number {
  return item.kind === 'sample' ? item.readings.length : 1;
}

import type { FleetValues } from '../compiled-rule.ts';

type FleetFunction = Parameters<FleetValues['value']>[0];

/** The order of a fleet is looked at again at most once in so long, in event time. */
const SORT_MICROS = 1_000_000;

/** The newest values of one metric of the devices with one tag. */
class FleetSeries {
  readonly #values = new Map<number, number>();
  #sum = 0;
  #sorted: readonly number[] = [];
  #sortedMicros = -Infinity;
  #newestMicros = -Infinity;

  put(deviceId: number, timeMicros: number, value: number): void {
    const before = this.#values.get(deviceId);
    this.#values.set(deviceId, value);
    this.#sum += value - (before ?? 0);
    if (timeMicros > this.#newestMicros) this.#newestMicros = timeMicros;
  }

  remove(deviceId: number): void {
    this.#sum -= this.#values.get(deviceId) ?? 0;
    this.#values.delete(deviceId);
    this.#sortedMicros = -Infinity;
  }

  value(fn: FleetFunction): number {
    const count = this.#values.size;
    if (count === 0) return NaN;
    if (fn === 'avg') return this.#sum / count;
    this.#sort();
    const sorted = this.#sorted;
    if (fn === 'min') return sorted[0] ?? NaN;
    if (fn === 'max') return sorted.at(-1) ?? NaN;
    const middle = sorted.length >> 1;
    const upper = sorted[middle] ?? NaN;
    return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
  }

  /** Rounding errors of the sum do not outlive the next sorting. */
  #sort(): void {
    if (this.#newestMicros < this.#sortedMicros + SORT_MICROS) return;
    this.#sortedMicros = this.#newestMicros;
    this.#sorted = [...this.#values.values()].sort((left, right) => left - right);
    this.#sum = this.#sorted.reduce((sum, value) => sum + value, 0);
  }
}

/**
 * The newest values of the devices of one organization, by tag and metric, as far as a rule asks for them.
 * A mean costs nothing; the smallest, largest and middle one are found anew at most once a second of event
 * time. Devices count from their first reading in this run of the program on. What other devices have sent
 * is not ordered with what this one sends: comparisons with the fleet are the one thing that a replay may
 * see a little differently.
 */
export class FleetNewest implements FleetValues {
  readonly #series = new Map<string, Map<string, FleetSeries>>();

  /**
   * @param wanted tag and metric of each comparison.
   * @param before what it takes the place of: known values stay known.
   */
  constructor(
    wanted: Iterable<{ readonly tag: string; readonly metric: string }> = [],
    before: FleetNewest | null = null,
  ) {
    for (const { tag, metric } of wanted) {
      let tags = this.#series.get(metric);
      if (tags === undefined) this.#series.set(metric, (tags = new Map()));
      const known = before === null ? undefined : before.#find(metric, tag);
      if (!tags.has(tag)) tags.set(tag, known ?? new FleetSeries());
    }
  }

  /** Whether values of a metric are asked for. */
  isWanted(metric: string): boolean {
    return this.#series.has(metric);
  }

  /** Notes the newest value of a device; what is no number is left out. */
  put(
    device: { readonly deviceId: number; readonly tags: readonly string[] },
    metric: string,
    timeMicros: number,
    value: number,
  ): void {
    const tags = this.#series.get(metric);
    if (tags === undefined || Number.isNaN(value)) return;
    for (const tag of device.tags) tags.get(tag)?.put(device.deviceId, timeMicros, value);
  }

  /** Forgets a device that was deleted, or whose tags have changed. */
  remove(deviceId: number): void {
    for (const tags of this.#series.values()) {
      for (const series of tags.values()) series.remove(deviceId);
    }
  }

  value(fn: FleetFunction, tag: string, metric: string): number {
    return this.#find(metric, tag)?.value(fn) ?? NaN;
  }

  #find(metric: string, tag: string): FleetSeries | undefined {
    return this.#series.get(metric)?.get(tag);
  }
}

import type { FleetValues } from '../compiled-rule.ts';
import type { RuleDevice } from '../evaluation/device-load.ts';

/**
 * The newest values of a fleet while its history is replayed. Worked out anew when it is asked and a value
 * has changed: histories are replayed in the order of time for all devices then.
 */
export class FleetReplay implements FleetValues {
  readonly #values = new Map<string, Map<number, number>>();

  /** Notes a reading of a device. */
  note(device: RuleDevice, metric: string, value: number): void {
    if (Number.isNaN(value)) return;
    for (const tag of device.tags) {
      const key = keyOf(tag, metric);
      let values = this.#values.get(key);
      if (values === undefined) {
        values = new Map();
        this.#values.set(key, values);
      }
      values.set(device.deviceId, value);
    }
  }

  value(fn: 'avg' | 'min' | 'max' | 'median', tag: string, metric: string): number {
    const values = [...(this.#values.get(keyOf(tag, metric))?.values() ?? [])];
    if (values.length === 0) return NaN;
    if (fn === 'min') return values.reduce((a, b) => Math.min(a, b));
    if (fn === 'max') return values.reduce((a, b) => Math.max(a, b));
    if (fn === 'avg') return values.reduce((a, b) => a + b) / values.length;
    const sorted = values.toSorted((a, b) => a - b);
    const middle = Math.floor(sorted.length / 2);
    const upper = sorted[middle] ?? NaN;
    return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
  }
}

/** A tag holds no line feed. */
function keyOf(tag: string, metric: string): string {
  return `${tag}\n${metric}`;
}

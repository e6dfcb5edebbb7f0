import { Gauge, type Registry } from 'prom-client';
import { QUALITY_NAMES, type Quality } from '../firmware-protocol/contract.ts';
import type { ClockState, DeviceClock } from '../firmware-protocol/device-clock.ts';
import { scrapedCounterBy, scrapedCounters } from '../scraped-metrics.ts';

const STATES: readonly ClockState[] = ['unknown', 'right', 'ahead', 'behind'];

/**
 * Counts of where times come from, and of how the clocks of the devices in memory are. The hot path
 * adds to plain numbers.
 */
export class ClockMetrics {
  /** Samples by quality. */
  readonly samples = [0, 0, 0, 0, 0];
  /** Samples that came too late to fire live rules; see `isLate`. */
  lateSamples = 0;

  /** Notes a sample that is stored. */
  dated(quality: Quality, isLate: boolean): void {
    this.samples[quality] = (this.samples[quality] ?? 0) + 1;
    if (isLate) this.lateSamples += 1;
  }

  /** Puts the metrics into a registry. @param clocks asked at each scrape. */
  register(registry: Registry, clocks: () => Iterable<DeviceClock>): void {
    const registers = [registry];
    const dated = {
      name: 'puback_ingest_dated_samples_total',
      help: 'Samples by where their time comes from.',
      label: 'quality',
    };
    scrapedCounterBy(registry, dated, () =>
      QUALITY_NAMES.map((quality, value) => [quality, this.samples[value] ?? 0] as const),
    );
    scrapedCounters(registry)(
      'puback_ingest_late_samples_total',
      'Samples that came more than two minutes after their time.',
      () => this.lateSamples,
    );
    new Gauge({
      name: 'puback_ingest_device_clocks',
      help: 'Devices in memory by how their clock is.',
      labelNames: ['state'],
      registers,
      collect() {
        const counts = countStates(clocks());
        for (const state of STATES) this.set({ state }, counts.get(state) ?? 0);
      },
    });
  }
}

function countStates(clocks: Iterable<DeviceClock>): Map<ClockState, number> {
  const counts = new Map<ClockState, number>();
  for (const { state } of clocks) counts.set(state, (counts.get(state) ?? 0) + 1);
  return counts;
}

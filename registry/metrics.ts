import { Counter, Gauge, Histogram, type Registry as MetricsRegistry } from 'prom-client';
import type { DeviceEventKind } from './device-event-row.ts';
import type { KeyRefusal } from './principal.ts';

/** What the registry counts. */
export interface RegistryMetrics {
  /** Counts a verdict on a key. */
  countVerdict(verdict: 'accepted' | KeyRefusal): void;
}

/**
 * Makes the registry's metrics. `isListening` says whether revocations by other programs are heard.
 */
export function createRegistryMetrics(
  registry: MetricsRegistry,
  isListening: () => boolean,
): RegistryMetrics {
  const counts = new Map<string, number>();
  const verdicts = new Counter({
    name: 'puback_registry_key_verdicts_total',
    help: 'Keys that were checked, by outcome.',
    labelNames: ['verdict'],
    registers: [registry],
    collect() {
      verdicts.reset();
      for (const [verdict, total] of counts) verdicts.inc({ verdict }, total);
    },
  });
  const listening = new Gauge({
    name: 'puback_registry_revocation_listener_up',
    help: '1 while revocations by other programs on the same database are heard.',
    registers: [registry],
    collect() {
      listening.set(isListening() ? 1 : 0);
    },
  });
  return {
    countVerdict(verdict) {
      counts.set(verdict, (counts.get(verdict) ?? 0) + 1);
    },
  };
}

/** What is counted of the history of connections. */
export interface DeviceEventMetrics {
  /** Counts an event that was told, before it is added to others. */
  counted(kind: DeviceEventKind): void;
  /** Counts rows that will never be written. */
  dropped(reason: 'queue_full' | 'refused' | 'stopped', rows: number): void;
  /** Begins to measure a statement. @returns what ends it. */
  startTimer(): () => void;
}

/** Makes the metrics of the history of connections. `rows` is asked at each scrape. */
export function createDeviceEventMetrics(
  registry: MetricsRegistry,
  rows: () => number,
  rowsMax: number,
): DeviceEventMetrics {
  const registers = [registry];
  const events = new Counter({
    name: 'puback_registry_device_events_total',
    help: 'Connects, disconnects, refusals and doubled identities that the broker told of.',
    labelNames: ['kind'],
    registers,
  });
  const dropped = new Counter({
    name: 'puback_registry_device_events_dropped_rows_total',
    help: 'Rows of the history of connections that were not written, by reason.',
    labelNames: ['reason'],
    registers,
  });
  const held = new Gauge({
    name: 'puback_registry_device_events_rows',
    help: 'Rows of the history of connections in memory.',
    registers,
    collect() {
      held.set(rows());
    },
  });
  const max = new Gauge({
    name: 'puback_registry_device_events_rows_max',
    help: 'Bound of puback_registry_device_events_rows.',
    registers,
  });
  max.set(rowsMax);
  const seconds = new Histogram({
    name: 'puback_registry_device_events_write_seconds',
    help: 'Time of a statement that wrote rows of the history of connections.',
    buckets: [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10],
    registers,
  });
  return {
    counted: (kind) => events.inc({ kind }),
    dropped: (reason, count) => dropped.inc({ reason }, count),
    startTimer: () => seconds.startTimer(),
  };
}

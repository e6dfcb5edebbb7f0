import { Counter, Histogram, type Registry } from 'prom-client';
import { scrapedGauges } from '../../scraped-metrics.ts';

/** Why a transition was not recorded. */
export const TRANSITION_DROP_REASONS = [
  'duplicate',
  'device_deleted',
  'refused',
  'queue_full',
] as const;
/** One of {@link TRANSITION_DROP_REASONS}. */
export type TransitionDropReason = (typeof TRANSITION_DROP_REASONS)[number];

/** Counts of the alert log. */
export class AlertLogMetrics {
  readonly #recorded: Counter;
  readonly #dropped: Counter<'reason'>;
  readonly #failures: Counter;
  readonly #diverged: Counter;
  readonly #flush: Histogram;

  constructor(registry: Registry) {
    const registers = [registry];
    this.#recorded = new Counter({
      name: 'puback_rules_transitions_recorded_total',
      help: 'Steps of alerts that were committed.',
      registers,
    });
    this.#dropped = new Counter({
      name: 'puback_rules_transitions_dropped_total',
      help: 'Steps of alerts that were not recorded, by reason.',
      labelNames: ['reason'],
      registers,
    });
    for (const reason of TRANSITION_DROP_REASONS) this.#dropped.inc({ reason }, 0);
    this.#failures = new Counter({
      name: 'puback_rules_record_failures_total',
      help: 'Attempts to write steps of alerts that the database did not take.',
      registers,
    });
    this.#diverged = new Counter({
      name: 'puback_rules_devices_diverged_total',
      help: 'Devices whose alerts another program has recorded otherwise.',
      registers,
    });
    this.#flush = new Histogram({
      name: 'puback_rules_record_seconds',
      help: 'Time from the first attempt to write a batch of steps of alerts to its COMMIT.',
      buckets: [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 30],
      registers,
    });
  }

  /** Makes the gauges, which ask when they are read. */
  watch(registry: Registry, queueMax: number, log: WatchedAlertLog): void {
    const gauge = scrapedGauges(registry);
    gauge(
      'puback_rules_transitions_rows',
      'Steps of alerts that wait to be recorded.',
      () => log.size,
    );
    gauge('puback_rules_transitions_rows_max', 'Bound of the steps that wait.', () => queueMax);
    gauge(
      'puback_rules_checkpoint_seconds',
      'Time of receipt, in seconds since 1970, up to which all that was evaluated is recorded.',
      () => log.checkpointMicros / 1e6,
    );
  }

  recorded(transitions: number, seconds: number): void {
    this.#recorded.inc(transitions);
    this.#flush.observe(seconds);
  }

  dropped(reason: TransitionDropReason, transitions = 1): void {
    this.#dropped.inc({ reason }, transitions);
  }

  failed(): void {
    this.#failures.inc();
  }

  diverged(devices: number): void {
    this.#diverged.inc(devices);
  }
}

/** What the gauges look at. */
export interface WatchedAlertLog {
  readonly size: number;
  readonly checkpointMicros: number;
}

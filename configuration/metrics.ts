import { Histogram, type Registry } from 'prom-client';
import { scrapedCounterBy, scrapedCounters, scrapedGauges } from '../scraped-metrics.ts';
import { REPORT_OUTCOMES, type ReportOutcome } from './configuration.ts';
import type { Cause } from './configuration-step.ts';

/** Devices of a kind, as the last sweep found them. */
export interface FleetCounts {
  readonly drifting: number;
  readonly held: number;
  readonly unpublished: number;
}

/** Metrics of configuration. */
export class ConfigurationMetrics {
  readonly #causes = new Map<Exclude<Cause, null>, number>([
    ['device', 0],
    ['type', 0],
    ['number', 0],
  ]);
  readonly #outcomes = new Map<ReportOutcome, number>(REPORT_OUTCOMES.map((each) => [each, 0]));
  readonly #flushes: Histogram;
  #counts: FleetCounts = { drifting: 0, held: 0, unpublished: 0 };
  #publishFailures = 0;
  #reportsHeldBack = 0;

  /** @param reports how many wait for the database. */
  constructor(
    registry: Registry,
    {
      reportsHeldMax,
      reports,
    }: { readonly reportsHeldMax: number; readonly reports: () => number },
  ) {
    const gauge = scrapedGauges(registry);
    const counter = scrapedCounters(registry);
    scrapedCounterBy(
      registry,
      {
        name: 'puback_configuration_versions_total',
        help: 'Versions made, by what made them.',
        label: 'cause',
      },
      () => this.#causes,
    );
    scrapedCounterBy(
      registry,
      {
        name: 'puback_configuration_reports_total',
        help: 'Reports of devices, by what was made of them.',
        label: 'outcome',
      },
      () => this.#outcomes,
    );
    gauge('puback_configuration_reports_rows', 'Reports that wait for the database.', reports);
    gauge(
      'puback_configuration_reports_rows_max',
      'Most reports that may wait.',
      () => reportsHeldMax,
    );
    counter(
      'puback_configuration_reports_held_back_total',
      'Reports that were not taken because too many wait; devices repeat them.',
      () => this.#reportsHeldBack,
    );
    counter(
      'puback_configuration_publish_failures_total',
      'Documents that the broker did not take; they are tried again.',
      () => this.#publishFailures,
    );
    gauge(
      'puback_configuration_drifting_devices',
      'Devices that have not had what they should for too long, at the last sweep.',
      () => this.#counts.drifting,
    );
    gauge(
      'puback_configuration_held_devices',
      'Devices whose document is too big or not as the schema of their type says, at the last sweep.',
      () => this.#counts.held,
    );
    gauge(
      'puback_configuration_unpublished_devices',
      'Devices whose topic is behind the database, at the last sweep.',
      () => this.#counts.unpublished,
    );
    this.#flushes = new Histogram({
      name: 'puback_configuration_reports_flush_seconds',
      help: 'Time to commit a batch of reports.',
      buckets: [0.005, 0.02, 0.05, 0.1, 0.5, 2, 10],
      registers: [registry],
    });
  }

  /** Notes new versions. */
  versionsMade(cause: Cause, count = 1): void {
    if (cause !== null) this.#causes.set(cause, (this.#causes.get(cause) ?? 0) + count);
  }

  /** Notes what was made of a report. */
  reported(outcome: ReportOutcome): void {
    this.#outcomes.set(outcome, (this.#outcomes.get(outcome) ?? 0) + 1);
  }

  /** Notes that a batch of reports is committed. */
  flushed(ms: number): void {
    this.#flushes.observe(ms / 1000);
  }

  /** Notes a report that was not taken. */
  heldBack(): void {
    this.#reportsHeldBack += 1;
  }

  /** Notes a document that the broker did not take. */
  publishFailed(): void {
    this.#publishFailures += 1;
  }

  /** Notes what a sweep found. */
  swept(counts: FleetCounts): void {
    this.#counts = counts;
  }
}

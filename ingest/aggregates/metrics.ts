import { Counter, Gauge, type Registry } from 'prom-client';
import type { AggregateJob } from './aggregates.ts';
import { LEVELS, type LevelName } from './levels.ts';
import { scrapedGauges } from '../../scraped-metrics.ts';

/** Jobs of the aggregates, as they stand in labels. */
export const AGGREGATE_JOBS = ['refresh', 'retention', 'database_jobs'] as const;

/** What the aggregates know at a scrape. */
export interface AggregateGauges {
  /** Seconds since a job last came through on any node; NaN before the first. */
  ageSeconds(job: AggregateJob): number;
  /** Seconds that the last materialised bucket of a level ended ago; NaN without one. */
  lagSeconds(level: LevelName): number;
  readonly dirtyRanges: number;
  readonly partitionsAhead: number;
  readonly failingJobs: number;
}

/** Counters of the aggregates. */
export interface AggregateMetrics {
  readonly failures: Counter<'job'>;
  readonly droppedPartitions: Counter;
  readonly deletedRows: Counter;
  readonly refreshedRanges: Counter;
  readonly skippedSpans: Counter;
  readonly forcedJobs: Counter;
}

/** Makes the metrics of the aggregates. Two programs in one process use two registries. */
export function createAggregateMetrics(
  registry: Registry,
  gauges: () => AggregateGauges,
): AggregateMetrics {
  const registers = [registry];
  registerGauges(registry, gauges);
  const failures = new Counter({
    name: 'puback_aggregates_failures_total',
    help: 'Runs of a job that failed; it is tried again.',
    labelNames: ['job'],
    registers,
  });
  for (const job of AGGREGATE_JOBS) failures.inc({ job }, 0);
  return {
    failures,
    droppedPartitions: new Counter({
      name: 'puback_aggregates_dropped_partitions_total',
      help: 'Partitions and chunks that nobody keeps any more.',
      registers,
    }),
    deletedRows: new Counter({
      name: 'puback_aggregates_deleted_rows_total',
      help: 'Rows deleted of organizations that keep less than the others.',
      registers,
    }),
    refreshedRanges: new Counter({
      name: 'puback_aggregates_refreshed_ranges_total',
      help: 'Notes of late rows that were worked off here.',
      registers,
    }),
    skippedSpans: new Counter({
      name: 'puback_aggregates_skipped_spans_total',
      help: 'Times that an hour of a device was left out, as the database cannot compute with its values.',
      registers,
    }),
    forcedJobs: new Counter({
      name: 'puback_aggregates_forced_jobs_total',
      help: 'Jobs of the database that were overdue and run by us.',
      registers,
    }),
  };
}

function registerGauges(registry: Registry, gauges: () => AggregateGauges): void {
  const gauge = scrapedGauges(registry);
  new Gauge({
    name: 'puback_aggregates_success_age_seconds',
    help: 'Time since a job last came through, on any node.',
    labelNames: ['job'],
    registers: [registry],
    collect() {
      for (const job of AGGREGATE_JOBS) this.set({ job }, gauges().ageSeconds(job));
    },
  });
  new Gauge({
    name: 'puback_aggregates_watermark_lag_seconds',
    help: 'Age of the end of the last materialised bucket.',
    labelNames: ['level'],
    registers: [registry],
    collect() {
      for (const { name } of LEVELS) this.set({ level: name }, gauges().lagSeconds(name));
    },
  });
  gauge(
    'puback_aggregates_dirty_ranges',
    'Notes of late rows that wait; counted up to 100 000.',
    () => gauges().dirtyRanges,
  );
  gauge(
    'puback_aggregates_ahead_partitions',
    'Partitions of days to come.',
    () => gauges().partitionsAhead,
  );
  gauge(
    'puback_aggregates_failing_jobs',
    'Jobs of the database whose last run failed.',
    () => gauges().failingJobs,
  );
}

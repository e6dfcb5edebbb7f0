import { Counter, type Registry } from 'prom-client';
import { scrapedGauges } from '../../scraped-metrics.ts';

/** What presence counts. */
export interface PresenceMetrics {
  statusPublished(): void;
  statusFailed(): void;
  flushFailed(): void;
  rowRejected(): void;
}

/** What is asked at each scrape. */
export interface PresenceGauges {
  readonly online: number;
  readonly sleeping: number;
  readonly queuedRows: number;
}

/** Makes the metrics of presence. `gauges` is asked at each scrape. */
export function createPresenceMetrics(
  registry: Registry,
  gauges: () => PresenceGauges,
): PresenceMetrics {
  const registers = [registry];
  const gauge = scrapedGauges(registry);
  const counter = (name: string, help: string) => new Counter({ name, help, registers });
  gauge('puback_broker_devices_online', 'Devices with a connection.', () => gauges().online);
  gauge(
    'puback_broker_devices_sleeping',
    'Devices without a connection whose next contact is not overdue.',
    () => gauges().sleeping,
  );
  gauge(
    'puback_broker_presence_queue_rows',
    'Devices whose presence waits to be written.',
    () => gauges().queuedRows,
  );
  const published = counter('puback_broker_status_publishes_total', 'Status messages published.');
  const failed = counter(
    'puback_broker_status_failures_total',
    'Status messages that could not be kept as retained messages.',
  );
  const flushFailures = counter(
    'puback_broker_presence_flush_failures_total',
    'Attempts to write presence that failed and are repeated.',
  );
  const rejected = counter(
    'puback_broker_presence_rejected_rows_total',
    'Rows of presence that the database refused for good.',
  );
  return {
    statusPublished: () => published.inc(),
    statusFailed: () => failed.inc(),
    flushFailed: () => flushFailures.inc(),
    rowRejected: () => rejected.inc(),
  };
}

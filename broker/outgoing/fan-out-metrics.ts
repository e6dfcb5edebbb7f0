import type { Registry } from 'prom-client';
import { scrapedCounterBy, scrapedGauges } from '../../scraped-metrics.ts';

/** What waits for subscribers at this moment, asked at each scrape. */
export interface FanOutGauges {
  readonly waitingMessages: number;
  readonly waitingBytes: number;
  readonly inFlightMessages: number;
  readonly filters: number;
}

/**
 * Counts of what goes out to subscribers. The hot path adds to plain numbers, which are read at a scrape.
 * A message counts once for each subscriber.
 */
export class FanOutMetrics {
  sentQos0 = 0;
  sentQos1 = 0;
  readonly dropped = {
    /** At QoS 0, to a subscriber that is too slow. */
    queue_full: 0,
    /** At QoS 1, to a persistent session: the session store failed. */
    store_failed: 0,
    /** Queued for a session that has lost the right to read it since. */
    not_granted: 0,
  };

  /** Puts the metrics into a registry. Two programs in one process use two registries. */
  register(registry: Registry, bytesMax: number, gauges: () => FanOutGauges): void {
    const gauge = scrapedGauges(registry);
    const sent = {
      name: 'puback_broker_sent_messages_total',
      help: 'Messages written to subscribers, by QoS.',
      label: 'qos',
    };
    scrapedCounterBy(registry, sent, () => [
      ['0', this.sentQos0],
      ['1', this.sentQos1],
    ]);
    const dropped = {
      name: 'puback_broker_dropped_messages_total',
      help: 'Messages that did not reach a subscriber, by reason.',
      label: 'reason',
    };
    scrapedCounterBy(registry, dropped, () => Object.entries(this.dropped));
    gauge(
      'puback_broker_waiting_messages',
      'Messages in memory that wait for subscribers.',
      () => gauges().waitingMessages,
    );
    gauge(
      'puback_broker_waiting_bytes',
      'Bytes in memory that wait for subscribers.',
      () => gauges().waitingBytes,
    );
    gauge(
      'puback_broker_waiting_bytes_max',
      'Bound of puback_broker_waiting_bytes.',
      () => bytesMax,
    );
    gauge(
      'puback_broker_in_flight_messages',
      'Messages sent at QoS 1 whose PUBACK has not come.',
      () => gauges().inFlightMessages,
    );
    gauge(
      'puback_broker_filters',
      'Topic filters of all sessions, expanded.',
      () => gauges().filters,
    );
  }
}

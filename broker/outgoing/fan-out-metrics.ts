import { Counter, Gauge, type Registry } from 'prom-client';

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
    const registers = [registry];
    const gauge = (name: string, help: string, read: () => number) =>
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(read());
        },
      });
    const sent = (): readonly number[] => [this.sentQos0, this.sentQos1];
    const { dropped } = this;
    new Counter({
      name: 'puback_broker_sent_messages_total',
      help: 'Messages written to subscribers, by QoS.',
      labelNames: ['qos'],
      registers,
      collect() {
        this.reset();
        for (const [qos, count] of sent().entries()) this.inc({ qos }, count);
      },
    });
    new Counter({
      name: 'puback_broker_dropped_messages_total',
      help: 'Messages that did not reach a subscriber, by reason.',
      labelNames: ['reason'],
      registers,
      collect() {
        this.reset();
        for (const [reason, count] of Object.entries(dropped)) this.inc({ reason }, count);
      },
    });
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

import { Counter, Histogram, type Registry } from 'prom-client';
import { SUPPRESSIONS, type Suppression } from './group-state.ts';
import { RECEIVER_KINDS, type ReceiverKind } from './receiver-settings.ts';
import { scrapedGauges } from '../../scraped-metrics.ts';

/** What waits, as it was last counted. */
export interface NotifyQueues {
  /** Steps of alerts that nobody has looked at; at most 10 000 are counted. */
  readonly outboxSteps: number;
  readonly waitingMessages: number;
  readonly inFlightMessages: number;
  readonly openCircuits: number;
}

const OUTCOMES = ['sent', 'failed', 'dead'] as const;

/** Counts of notifications. */
export class NotifyMetrics {
  readonly #attempts: Counter<'kind' | 'outcome'>;
  readonly #suppressed: Counter<'reason'>;
  readonly #duration: Histogram<'kind'>;

  constructor(registry: Registry, queues: () => NotifyQueues) {
    const registers = [registry];
    this.#attempts = new Counter({
      name: 'puback_notify_attempts_total',
      help: 'Attempts to send a notification, by kind of receiver and outcome; dead: the last one, given up.',
      labelNames: ['kind', 'outcome'],
      registers,
    });
    for (const kind of RECEIVER_KINDS) {
      for (const outcome of OUTCOMES) this.#attempts.inc({ kind, outcome }, 0);
    }
    this.#suppressed = new Counter({
      name: 'puback_notify_suppressed_alerts_total',
      help: 'Alerts that a receiver was not told of, by reason.',
      labelNames: ['reason'],
      registers,
    });
    for (const reason of SUPPRESSIONS) this.#suppressed.inc({ reason }, 0);
    this.#duration = new Histogram({
      name: 'puback_notify_send_duration_seconds',
      help: 'Time of an attempt to send a notification, by kind of receiver.',
      labelNames: ['kind'],
      buckets: [0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10],
      registers,
    });
    const scraped = scrapedGauges(registry);
    const gauge = (name: string, help: string, read: (from: NotifyQueues) => number): void =>
      scraped(name, help, () => read(queues()));
    gauge(
      'puback_notify_outbox_steps',
      'Steps of alerts that notification has not looked at yet; at most 10 000 are counted.',
      ({ outboxSteps }) => outboxSteps,
    );
    gauge(
      'puback_notify_waiting_messages',
      'Notifications that are to be sent, of all organizations.',
      ({ waitingMessages }) => waitingMessages,
    );
    gauge(
      'puback_notify_in_flight_messages',
      'Notifications that are being sent.',
      ({ inFlightMessages }) => inFlightMessages,
    );
    gauge(
      'puback_notify_open_circuits',
      'Receivers that failed so often that they are left alone for a while.',
      ({ openCircuits }) => openCircuits,
    );
  }

  /** Notes an attempt. */
  countAttempt(kind: ReceiverKind, outcome: (typeof OUTCOMES)[number], seconds: number): void {
    this.#attempts.inc({ kind, outcome });
    this.#duration.observe({ kind }, seconds);
  }

  /** Notes that nobody was told of so many alerts. */
  countSuppressed(reason: Suppression, alerts: number): void {
    this.#suppressed.inc({ reason }, alerts);
  }
}

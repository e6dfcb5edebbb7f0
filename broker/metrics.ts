import { Counter, Gauge, type Registry } from 'prom-client';
import type { ConnectRefusal } from './principal.ts';

/** Ways in which a connection ends that are the broker's doing. */
export type CloseReason =
  | 'connections_max'
  | 'address_connections_max'
  | 'connect_deadline'
  | 'protocol_violation'
  | 'hold_timeout'
  | 'rate'
  | 'held_bytes'
  | 'errors'
  | 'revoked'
  | 'keep_alive';

/** Counts of the broker, in the registry that was passed. */
export interface BrokerMetrics {
  connected(): void;
  refused(refusal: ConnectRefusal): void;
  closed(reason: CloseReason): void;
  subscribeDenied(): void;
  errorTold(code: string): void;
}

/** Makes the metrics of one broker. `gauges` is asked at each scrape. */
export function createBrokerMetrics(
  registry: Registry,
  gauges: () => { connections: number; sessions: number; held: number },
): BrokerMetrics {
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
  gauge(
    'puback_broker_connections',
    'Open connections, authenticated or not.',
    () => gauges().connections,
  );
  gauge('puback_broker_sessions', 'Authenticated connections.', () => gauges().sessions);
  gauge(
    'puback_broker_held_messages',
    'Messages taken in and not acknowledged yet.',
    () => gauges().held,
  );
  const connects = new Counter({
    name: 'puback_broker_connects_total',
    help: 'Connections that were let in.',
    registers,
  });
  const refusals = new Counter({
    name: 'puback_broker_connects_refused_total',
    help: 'CONNECT packets answered with a refusal, by reason.',
    labelNames: ['reason'],
    registers,
  });
  const closes = new Counter({
    name: 'puback_broker_connections_closed_total',
    help: 'Connections that the broker ended, by reason.',
    labelNames: ['reason'],
    registers,
  });
  const denials = new Counter({
    name: 'puback_broker_subscriptions_denied_total',
    help: 'Topic filters answered with 0x80.',
    registers,
  });
  const errors = new Counter({
    name: 'puback_broker_device_errors_total',
    help: 'Messages refused, by the code of in/err.',
    labelNames: ['code'],
    registers,
  });
  return {
    connected: () => connects.inc(),
    refused: (reason) => refusals.inc({ reason }),
    closed: (reason) => closes.inc({ reason }),
    subscribeDenied: () => denials.inc(),
    errorTold: (code) => errors.inc({ code }),
  };
}

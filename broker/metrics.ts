import { Counter, type Registry } from 'prom-client';
import type { ConnectRefusal } from './principal.ts';
import { scrapedGauges } from '../scraped-metrics.ts';

/**
 * Why a connection ended. All but `client_left` (with DISCONNECT), `client_gone` (without) and
 * `taken_over` (the same client came again) are the broker's doing.
 */
export type CloseReason =
  | 'client_left'
  | 'client_gone'
  | 'taken_over'
  | 'shutdown'
  | 'address_banned'
  | 'address_unauthenticated_max'
  | 'address_rate'
  | 'proxy_header'
  | 'publish_forbidden'
  | 'slow_subscriber'
  | 'stuck_subscriber'
  | 'connections_max'
  | 'address_connections_max'
  | 'connect_deadline'
  | 'protocol_violation'
  | 'packet_too_large'
  | 'hold_timeout'
  | 'rate'
  | 'quota'
  | 'held_bytes'
  | 'errors'
  | 'revoked'
  | 'key_expired'
  | 'keep_alive';

/** Counts of the broker, in the registry that was passed. */
export interface BrokerMetrics {
  connected(): void;
  refused(refusal: ConnectRefusal): void;
  closed(reason: CloseReason): void;
  subscribeDenied(): void;
  errorTold(code: string): void;
  /** Gives the gauges something to read at each scrape. */
  observe(gauges: () => BrokerGauges): void;
}

/** What there is of connections at one moment. */
export interface BrokerGauges {
  readonly connections: number;
  readonly sessions: number;
  readonly held: number;
}

/** Makes the metrics of one broker. */
export function createBrokerMetrics(registry: Registry): BrokerMetrics {
  const registers = [registry];
  let gauges = (): BrokerGauges => ({ connections: 0, sessions: 0, held: 0 });
  const gauge = scrapedGauges(registry);
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
    help: 'Connections that ended, by reason.',
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
    observe(read) {
      gauges = read;
    },
  };
}

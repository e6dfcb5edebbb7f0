import { Counter, Gauge, type Registry } from 'prom-client';
import { scrapedGauges } from '../../scraped-metrics.ts';

/** How a TLS handshake ended; a closed set, for the metric's label. */
export type HandshakeOutcome = 'full' | 'resumed' | 'failed' | 'certificate_refused';

/** Counts of the listeners, the door and those who watch it, in the registry that was passed. */
export interface GateMetrics {
  /** accept() failed. */
  acceptFailed(): void;
  handshake(outcome: HandshakeOutcome): void;
  tlsReloaded(isDone: boolean): void;
  /** @param atMs end of the time of the server's certificate, ms since 1970 */
  certificateEnds(atMs: number): void;
  loginFailed(): void;
  addressBanned(): void;
  identityFound(code: 'duplicate_identity' | 'flapping'): void;
  /** Gives the gauges something to read at each scrape. */
  observe(gauges: () => GateGauges): void;
}

/** What there is at the door at one moment. */
export interface GateGauges {
  readonly unauthenticated: number;
  readonly banned: number;
}

/** Makes the metrics of one door with its listeners. */
export function createGateMetrics(registry: Registry): GateMetrics {
  let gauges = (): GateGauges => ({ unauthenticated: 0, banned: 0 });
  createGauges(registry, () => gauges());
  const counter = (name: string, help: string, ...labelNames: string[]) =>
    new Counter({ name, help, labelNames, registers: [registry] });
  const acceptFailures = counter(
    'puback_broker_accept_failures_total',
    'Calls of accept() failed.',
  );
  const handshakes = counter('puback_broker_tls_handshakes_total', 'By how they ended.', 'outcome');
  const reloads = counter('puback_broker_tls_reloads_total', 'Changed files, taken?', 'outcome');
  const failures = counter('puback_broker_login_failures_total', 'Keys that were guesses.');
  const bans = counter('puback_broker_address_bans_total', 'Addresses that were banned.');
  const findings = counter('puback_broker_identity_findings_total', 'Odd use of a key.', 'code');
  const ends = new Gauge({
    name: 'puback_broker_tls_certificate_end_timestamp_seconds',
    help: 'When the time of the server certificate ends, seconds since 1970; 0 without TLS.',
    registers: [registry],
  });
  return {
    acceptFailed: () => acceptFailures.inc(),
    handshake: (outcome) => handshakes.inc({ outcome }),
    tlsReloaded: (isDone) => reloads.inc({ outcome: isDone ? 'done' : 'failed' }),
    certificateEnds: (atMs) => ends.set(atMs / 1000),
    loginFailed: () => failures.inc(),
    addressBanned: () => bans.inc(),
    identityFound: (code) => findings.inc({ code }),
    observe(read) {
      gauges = read;
    },
  };
}

function createGauges(registry: Registry, read: () => GateGauges): void {
  const gauge = scrapedGauges(registry);
  gauge(
    'puback_broker_unauthenticated_connections',
    'Open connections without CONNACK.',
    () => read().unauthenticated,
  );
  gauge('puback_broker_banned_addresses', 'Banned now.', () => read().banned);
}

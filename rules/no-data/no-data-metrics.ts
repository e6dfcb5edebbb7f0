import { Gauge, type Registry } from 'prom-client';
import type { Silence } from '../compiled-rule.ts';
import { scrapedCounters, scrapedGauges } from '../../scraped-metrics.ts';

/** What is asked of {@link NoData} at each scrape. */
export interface NoDataGauges {
  readonly watchedDevices: number;
  /** Deadlines that were missed, by kind. */
  readonly silent: Readonly<Record<Silence, number>>;
  /** Since the start. */
  readonly checks: number;
  readonly outages: number;
  readonly writeFailures: number;
}

/** Makes the metrics of rules that look for missing readings. `gauges` is asked at each scrape. */
export function registerNoDataMetrics(registry: Registry, gauges: () => NoDataGauges): void {
  const registers = [registry];
  scrapedGauges(registry)(
    'puback_rules_no_data_watched_devices',
    'Devices of which a rule expects readings.',
    () => gauges().watchedDevices,
  );
  new Gauge({
    name: 'puback_rules_no_data_silent_deadlines',
    help: 'Deadlines of watched devices that were missed and are still, by kind of silence.',
    labelNames: ['kind'],
    registers,
    collect() {
      for (const [kind, count] of Object.entries(gauges().silent)) this.set({ kind }, count);
    },
  });
  const scraped = scrapedCounters(registry);
  const counter = (name: string, help: string, read: (now: NoDataGauges) => number): void =>
    scraped(name, help, () => read(gauges()));
  counter(
    'puback_rules_no_data_checks_total',
    'Deadlines of devices that were looked at because they were due.',
    ({ checks }) => checks,
  );
  counter(
    'puback_rules_no_data_outages_total',
    'Times in which silence of devices did not count, because the program could not hear them.',
    ({ outages }) => outages,
  );
  counter(
    'puback_rules_no_data_write_failures_total',
    'Attempts to write what was learned of devices that failed and are repeated.',
    ({ writeFailures }) => writeFailures,
  );
}

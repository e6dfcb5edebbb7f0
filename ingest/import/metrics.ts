import type { Registry } from 'prom-client';
import { scrapedCounterBy, scrapedGauges } from '../../scraped-metrics.ts';

/** Counts of imports; read at a scrape. */
export class ImportMetrics {
  #stored = 0;
  #refused = 0;

  /** Notes a line that is stored, or refused. */
  lineSettled(isRefused: boolean): void {
    if (isRefused) this.#refused += 1;
    else this.#stored += 1;
  }

  /** Puts the metrics into a registry. */
  register(registry: Registry, runsMax: number, runs: () => number): void {
    const lines = {
      name: 'puback_import_lines_total',
      help: 'Lines of imported files, by what became of them.',
      label: 'outcome',
    };
    scrapedCounterBy(registry, lines, () => [
      ['stored', this.#stored],
      ['refused', this.#refused],
    ]);
    const gauge = scrapedGauges(registry);
    gauge('puback_import_runs', 'Imports that are running.', runs);
    gauge('puback_import_runs_max', 'Imports that may run at once.', () => runsMax);
  }
}

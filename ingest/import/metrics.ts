import { Counter, Gauge, type Registry } from 'prom-client';

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
    const registers = [registry];
    const read = (): [string, number][] => [
      ['stored', this.#stored],
      ['refused', this.#refused],
    ];
    new Counter({
      name: 'puback_import_lines_total',
      help: 'Lines of imported files, by what became of them.',
      labelNames: ['outcome'],
      registers,
      collect() {
        this.reset();
        for (const [outcome, lines] of read()) this.inc({ outcome }, lines);
      },
    });
    new Gauge({
      name: 'puback_import_runs',
      help: 'Imports that are running.',
      registers,
      collect() {
        this.set(runs());
      },
    });
    new Gauge({
      name: 'puback_import_runs_max',
      help: 'Imports that may run at once.',
      registers,
      collect() {
        this.set(runsMax);
      },
    });
  }
}

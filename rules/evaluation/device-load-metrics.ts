import { Counter, type Registry } from 'prom-client';

/** Counts of loading devices. */
export class DeviceLoadMetrics {
  readonly #series: Counter;
  readonly #cut: Counter;

  constructor(registry: Registry) {
    const registers = [registry];
    this.#series = new Counter({
      name: 'puback_rules_loaded_series_total',
      help: 'Series whose state was rebuilt from stored readings.',
      registers,
    });
    this.#cut = new Counter({
      name: 'puback_rules_cut_series_total',
      help: 'Series whose windows have more readings stored than are kept, or than are evaluated again.',
      registers,
    });
  }

  loaded(series: number, cut: number): void {
    this.#series.inc(series);
    this.#cut.inc(cut);
  }
}

import { Counter, Gauge, type Registry } from 'prom-client';

/** A metric without labels whose value is asked at each scrape, so that counting costs an addition. */
export type ScrapedMetric = (name: string, help: string, read: () => number) => void;

/** Makes gauges in a registry. */
export function scrapedGauges(registry: Registry): ScrapedMetric {
  return (name, help, read) => {
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(read());
      },
    });
  };
}

/** Makes counters in a registry; what is read must never fall. */
export function scrapedCounters(registry: Registry): ScrapedMetric {
  return (name, help, read) => {
    new Counter({
      name,
      help,
      registers: [registry],
      collect() {
        this.reset();
        this.inc(read());
      },
    });
  };
}

/** A counter with one label of a closed set; `read` gives the count of each of its values. */
export function scrapedCounterBy(
  registry: Registry,
  { name, help, label }: { readonly name: string; readonly help: string; readonly label: string },
  read: () => Iterable<readonly [value: string, count: number]>,
): void {
  new Counter({
    name,
    help,
    labelNames: [label],
    registers: [registry],
    collect() {
      this.reset();
      for (const [value, count] of read()) this.inc({ [label]: value }, count);
    },
  });
}

import { Gauge, Histogram, type Registry as MetricsRegistry } from 'prom-client';

/** What the API measures. */
export interface ApiMetrics {
  /** @param route method and path of the table, or `none`: never what the client wrote. */
  observe(route: string, status: number, seconds: number): void;
}

/** Makes the metrics of the API. `connections` is asked at each scrape. */
export function createApiMetrics(
  registry: MetricsRegistry,
  connections: () => number,
  connectionsMax: number,
): ApiMetrics {
  const duration = new Histogram({
    name: 'puback_api_request_duration_seconds',
    help: 'Time from the head of a request to the end of its answer.',
    labelNames: ['route', 'status'],
    buckets: [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10],
    registers: [registry],
  });
  const open = new Gauge({
    name: 'puback_api_connections',
    help: 'Plain HTTP connections that are open.',
    registers: [registry],
    collect() {
      open.set(connections());
    },
  });
  const max = new Gauge({
    name: 'puback_api_connections_max',
    help: 'Plain HTTP connections that may be open at once.',
    registers: [registry],
  });
  max.set(connectionsMax);
  return {
    observe(route, status, seconds) {
      duration.observe({ route, status: String(status) }, seconds);
    },
  };
}

import type { Fault } from './fault.ts';

const LATENCY_MS = 200;
const BYTES_PER_S = 200_000;

/** The way to the database is long and narrow: 200 ms each way, 200 kB/s for each connection. */
export function slowDatabase(durationMs: number): Fault {
  return {
    name: 'slow-database',
    durationMs,
    needsServer: true,
    apply({ databaseProxy }) {
      if (databaseProxy !== null) {
        databaseProxy.latencyMs = LATENCY_MS;
        databaseProxy.bytesPerS = BYTES_PER_S;
      }
      return Promise.resolve(() => {
        if (databaseProxy !== null) {
          databaseProxy.latencyMs = 0;
          databaseProxy.bytesPerS = 0;
        }
        return Promise.resolve();
      });
    },
  };
}

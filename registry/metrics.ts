import { Counter, Gauge, type Registry as MetricsRegistry } from 'prom-client';
import type { KeyRefusal } from './principal.ts';

/** What the registry counts. */
export interface RegistryMetrics {
  /** Counts a verdict on a key. */
  countVerdict(verdict: 'accepted' | KeyRefusal): void;
}

/**
 * Makes the registry's metrics. `isListening` says whether revocations by other programs are heard.
 */
export function createRegistryMetrics(
  registry: MetricsRegistry,
  isListening: () => boolean,
): RegistryMetrics {
  const counts = new Map<string, number>();
  const verdicts = new Counter({
    name: 'puback_registry_key_verdicts_total',
    help: 'Keys that were checked, by outcome.',
    labelNames: ['verdict'],
    registers: [registry],
    collect() {
      verdicts.reset();
      for (const [verdict, total] of counts) verdicts.inc({ verdict }, total);
    },
  });
  const listening = new Gauge({
    name: 'puback_registry_revocation_listener_up',
    help: '1 while revocations by other programs on the same database are heard.',
    registers: [registry],
    collect() {
      listening.set(isListening() ? 1 : 0);
    },
  });
  return {
    countVerdict(verdict) {
      counts.set(verdict, (counts.get(verdict) ?? 0) + 1);
    },
  };
}

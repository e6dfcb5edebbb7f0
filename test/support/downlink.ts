import { pino } from 'pino';
import { Registry as MetricsRegistry } from 'prom-client';
import type { CommandWire } from '../../commands/commands.ts';
import { loadConfig } from '../../config.ts';
import { Downlink } from '../../downlink.ts';
import type { Database } from '../../drizzle/database.ts';
import type { Registry } from '../../registry/registry.ts';

/** What was sent to devices, in place of a broker. */
export interface MemoryWire extends CommandWire {
  /** By topic. */
  readonly kept: Map<string, Buffer>;
  /** In order. */
  readonly sent: { readonly topic: string; readonly payload: Buffer }[];
  /** Devices that have a connection which reads their slot. */
  readonly reading: Set<number>;
}

/** Makes an empty one. */
export function createMemoryWire(): MemoryWire {
  const kept = new Map<string, Buffer>();
  const sent: { topic: string; payload: Buffer }[] = [];
  const reading = new Set<number>();
  return {
    kept,
    sent,
    reading,
    async publishRetained(topic, payload) {
      sent.push({ topic, payload });
      if (payload.length === 0) kept.delete(topic);
      else kept.set(topic, payload);
    },
    async publish(topic, payload) {
      sent.push({ topic, payload });
    },
    retained: (topic) => kept.get(topic) ?? null,
    retainedTopics: () => [...kept.keys()],
    isReading: (deviceId) => reading.has(deviceId),
  };
}

/** The downlink of a test without a broker. Nothing runs by itself: no sweeps, no campaigns. */
export function createTestDownlink(
  database: Database,
  registry: Registry,
  settings: Record<string, string> = {},
): { downlink: Downlink; wire: MemoryWire } {
  const wire = createMemoryWire();
  const downlink = new Downlink({
    config: loadConfig(settings),
    database,
    registry,
    metricsRegistry: new MetricsRegistry(),
    now: Date.now,
    log: pino({ level: 'silent' }),
    onStop: () => undefined,
    linkKey: Buffer.alloc(32, 7),
    wire,
  });
  return { downlink, wire };
}

import { pino } from 'pino';
import { Registry as MetricsRegistry } from 'prom-client';
import {
  createConfiguration,
  type ConfigurationDeps,
  type ConfigurationParts,
} from '../../configuration/create-configuration.ts';
import type {
  ConfigurationLimits,
  ConfigurationWire,
  ConfiguredDevice,
} from '../../configuration/configuration.ts';
import { writeAudit } from '../../registry/audit.ts';
import type { Author } from '../../registry/devices.ts';
import type { Registry } from '../../registry/registry.ts';
import { createTestDatabase, type TestDatabase } from './database.ts';
import { createOrganization, createTestRegistry, type TestOrganization } from './registry.ts';

/** Retained messages in memory, with everything that was published. */
export class FakeWire implements ConfigurationWire {
  readonly topics = new Map<string, Buffer>();
  readonly published: { readonly topic: string; readonly payload: Buffer }[] = [];
  /** Set it to fail, or hold up, what is published. */
  before: (topic: string) => Promise<void> = () => Promise.resolve();

  async publishRetained(topic: string, payload: Buffer): Promise<void> {
    await this.before(topic);
    this.published.push({ topic, payload });
    if (payload.length === 0) this.topics.delete(topic);
    else this.topics.set(topic, payload);
  }

  retained(topic: string): Buffer | null {
    return this.topics.get(topic) ?? null;
  }

  retainedTopics(filter: string): Iterable<string> {
    const pattern = new RegExp(`^${filter.replaceAll('+', '[^/]+')}$`);
    return [...this.topics.keys()].filter((topic) => pattern.test(topic));
  }

  /** What a device of `acme` would read; null: nothing. */
  read(device: string): { v: number; cfg: Record<string, unknown> } | null {
    const payload = this.retained(`v1/acme/${device}/in/cfg`);
    return payload === null
      ? null
      : (JSON.parse(payload.toString()) as { v: number; cfg: Record<string, unknown> });
  }
}

/** Limits of a test: small, so that it can reach them. */
export const configurationLimits: ConfigurationLimits = {
  documentBytesMax: 2048,
  versionsMax: 5,
  typesMax: 3,
  reportsHeldMax: 300,
  sweepMs: 3_600_000,
};

/** Configuration on a database of its own, with a fake wire, a clock of its own, and organization `acme`. */
export interface TestConfiguration {
  readonly test: TestDatabase;
  readonly registry: Registry;
  readonly acme: TestOrganization;
  readonly author: Author;
  readonly wire: FakeWire;
  readonly metricsRegistry: MetricsRegistry;
  parts: ConfigurationParts;
  /** Milliseconds since 1970. */
  nowMs: number;
  /** Ends the parts and makes new ones on the same database and topics, as a new start of the program. */
  restart(change?: Partial<ConfigurationDeps>): Promise<void>;
  /** Makes a device of `acme`. */
  device(slug: string, type?: string | null): Promise<ConfiguredDevice>;
  /** Stores a hello of a device, as presence does. */
  hello(device: ConfiguredDevice, hello: object): Promise<void>;
  stop(): Promise<void>;
}

/** Makes one; nothing is started. */
export async function createTestConfiguration(
  change: Partial<ConfigurationDeps> = {},
): Promise<TestConfiguration> {
  const test = await createTestDatabase();
  const { database } = test;
  const registry = createTestRegistry(database, 100_000);
  const acme = await createOrganization(database, 'acme');
  const wire = new FakeWire();
  const metricsRegistry = new MetricsRegistry();
  const make = (more: Partial<ConfigurationDeps>): ConfigurationParts =>
    createConfiguration({
      database,
      wire,
      writeAudit,
      now: () => result.nowMs,
      limits: configurationLimits,
      metricsRegistry,
      log: pino({ level: 'silent' }),
      ...more,
    });
  const result: TestConfiguration = {
    test,
    registry,
    acme,
    author: acme.author,
    wire,
    metricsRegistry,
    nowMs: Date.parse('2026-11-21T12:00:00Z'),
    parts: undefined as unknown as ConfigurationParts,
    async restart(more = {}) {
      await result.parts.stop();
      metricsRegistry.clear();
      result.parts = make(more);
    },
    async device(slug, type = null) {
      const made = await registry.devices.create(acme.author, { slug, type });
      const { organizationId } = acme.author;
      return { organizationId, organization: 'acme', deviceId: made.deviceId, device: slug };
    },
    async hello({ deviceId, organizationId }, hello) {
      await database.pool.query(
        `INSERT INTO device_presence (device_id, organization_id, state, since, last_contact_at,
                                      connection_number, address, hello)
         VALUES ($1, $2, 'online', now(), now(), 1, '', $3)
         ON CONFLICT (device_id) DO UPDATE SET hello = device_presence.hello || excluded.hello`,
        [deviceId, organizationId, JSON.stringify(hello)],
      );
    },
    async stop() {
      await result.parts.stop();
      await test.drop();
    },
  };
  result.parts = make(change);
  return result;
}

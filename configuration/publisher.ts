import type pg from 'pg';
import { guardStore } from '../drizzle/sqlstate.ts';
import { encodeDesiredConfiguration } from '../firmware-protocol/configuration.ts';
import type { DeviceIdentity } from '../firmware-protocol/topics.ts';
import type { Logger } from '../log.ts';
import type { ConfigurationWire, Document } from './configuration.ts';
import { configurationTopic, publishedVersionOf } from './document-check.ts';
import type { ConfigurationMetrics } from './metrics.ts';

/** A version that is committed. */
export interface CommittedVersion extends DeviceIdentity {
  readonly deviceId: number;
  readonly version: number;
  readonly document: Document;
}

/** What {@link Publisher} works with. */
export interface PublisherParts {
  readonly wire: ConfigurationWire;
  readonly pool: pg.Pool;
  /** Versions of a device that are kept. */
  readonly versionsMax: number;
  readonly metrics: ConfigurationMetrics;
  readonly log: Logger;
}

interface Due {
  /** Null: the topic is to be cleared. */
  readonly committed: CommittedVersion | null;
  readonly done: (() => void)[];
}

/** The broker writes those of a batch to its disk together. */
const BATCH_TOPICS = 200;
const NOTHING = Buffer.alloc(0);

/*
 * What is no longer the newest keeps its row different, and is looked at again. Versions beyond those that
 * are kept go with the publication of a newer one.
 */
const MARK = `
  WITH given AS (
    SELECT * FROM unnest($1::int4[], $2::int8[]) AS given (device_id, version)
  ), pruned AS (
    DELETE FROM device_configuration_version AS old USING given
    WHERE old.device_id = given.device_id AND old.version <= given.version - $3::int8
  )
  UPDATE device_configuration AS stored SET published_version = given.version
  FROM given
  WHERE stored.device_id = given.device_id AND stored.version >= given.version
    AND coalesce(stored.published_version, 0) <= given.version`;

/**
 * Brings committed versions into the topics of their devices, the newest of each, never an older one over
 * a newer one. What fails, or a crash keeps from being published, differs in the database and is found by
 * the sweeper.
 */
export class Publisher {
  readonly #parts: PublisherParts;
  readonly #due = new Map<string, Due>();
  #work: Promise<void> | null = null;

  constructor(parts: PublisherParts) {
    this.#parts = parts;
  }

  /** Publishes versions. Resolves when they were tried and what was published is marked. Never rejects. */
  async publish(committed: readonly CommittedVersion[]): Promise<void> {
    await Promise.all(committed.map((each) => this.#add(configurationTopic(each), each)));
  }

  /** Clears the topic of a device that is gone. Never rejects. */
  clear(topic: string): Promise<void> {
    return this.#add(topic, null);
  }

  /** Marks versions that are in their topics already. Never rejects. */
  async mark(published: readonly Pick<CommittedVersion, 'deviceId' | 'version'>[]): Promise<void> {
    if (published.length === 0) return;
    const ids = published.map(({ deviceId }) => deviceId);
    const versions = published.map(({ version }) => version);
    const { pool, versionsMax, log } = this.#parts;
    try {
      await guardStore(pool.query(MARK, [ids, versions, versionsMax]));
    } catch (err) {
      log.debug({ err }, 'published configuration not marked, will be looked at again');
    }
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    while (this.#work !== null) await this.#work;
  }

  #add(topic: string, committed: CommittedVersion | null): Promise<void> {
    return new Promise((resolve) => {
      const before = this.#due.get(topic) ?? { committed: null, done: [] };
      const newest = isNewer(before.committed, committed) ? before.committed : committed;
      this.#due.set(topic, { committed: newest, done: [...before.done, resolve] });
      this.#work ??= this.#run();
    });
  }

  async #run(): Promise<void> {
    // What is added in this turn of the event loop is published together.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#due.size > 0) {
      const batch = [...this.#due].slice(0, BATCH_TOPICS);
      for (const [topic] of batch) this.#due.delete(topic);
      const published = await Promise.all(
        batch.map(([topic, due]) => this.#publishOne(topic, due)),
      );
      await this.mark(published.filter((each) => each !== null));
      for (const [, { done }] of batch) for (const resolve of done) resolve();
    }
    this.#work = null;
  }

  /** @returns what is in the topic now, when it is what was committed. */
  async #publishOne(topic: string, { committed }: Due): Promise<CommittedVersion | null> {
    const { wire, metrics, log } = this.#parts;
    try {
      const there = publishedVersionOf(wire.retained(topic));
      if (committed === null) {
        if (wire.retained(topic) !== null) await wire.publishRetained(topic, NOTHING);
        return null;
      }
      if (there > committed.version) return null;
      if (there < committed.version) {
        const { version, document } = committed;
        await wire.publishRetained(topic, encodeDesiredConfiguration(version, document));
      }
      return committed;
    } catch (err) {
      metrics.publishFailed();
      log.warn({ err, topic }, 'configuration not published, will be tried again');
      return null;
    }
  }
}

/** Whether what is due is of the same device and newer than what comes. */
function isNewer(due: CommittedVersion | null, next: CommittedVersion | null): boolean {
  if (due === null || next === null) return false;
  return due.deviceId === next.deviceId && due.version > next.version;
}

import type pg from 'pg';
import { guardStore } from '../drizzle/sqlstate.ts';
import { inTransaction } from '../drizzle/transaction.ts';
import type { Logger } from '../log.ts';
import type { ConfigurationWire } from './configuration.ts';
import {
  addRows,
  DRIFTS,
  holdDevices,
  lockRows,
  saveRows,
  type ConfigurationRow,
} from './configuration-row.ts';
import { passNumber, type ConfigurationState } from './configuration-step.ts';
import { configurationTopic, packetBytes, publishedVersionOf } from './document-check.ts';
import type { ConfigurationMetrics } from './metrics.ts';
import type { Publisher } from './publisher.ts';
import { committedOf, EVERYBODY, type Renewal } from './renewal.ts';

/** What {@link Sweeper} works with. */
export interface SweeperParts {
  readonly pool: pg.Pool;
  readonly wire: ConfigurationWire;
  readonly publisher: Publisher;
  readonly renewal: Renewal;
  readonly metrics: ConfigurationMetrics;
  readonly sweepMs: number;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly log: Logger;
}

/** A row as it is compared with its topic. */
interface Compared {
  device_id: number;
  organization: string;
  device: string;
  version: number;
  published_version: number | null;
}

const PAGE_ROWS = 500;
/** Devices whose change waits; beyond it all are looked at. */
const CHANGED_MAX = 10_000;

const COMPARED = (where: string): string => `
  SELECT stored.device_id, organization.slug AS organization, device.slug AS device,
         stored.version::float8, stored.published_version::float8
  FROM device_configuration AS stored
  JOIN device ON device.device_id = stored.device_id
  JOIN organization ON organization.organization_id = device.organization_id
  WHERE stored.device_id > $1 AND stored.version > 0 AND ${where}
  ORDER BY stored.device_id LIMIT ${PAGE_ROWS}`;
const ALL = COMPARED('true');
const UNPUBLISHED = COMPARED('stored.published_version IS DISTINCT FROM stored.version');

const BY_NAME = `
  SELECT device.device_id, organization.slug AS organization, device.slug AS device
  FROM unnest($1::text[], $2::text[]) AS given (organization, device)
  JOIN organization ON organization.slug = given.organization
  JOIN device
    ON device.organization_id = organization.organization_id AND device.slug = given.device`;

const COUNTS = `
  SELECT count(*) FILTER (WHERE ${DRIFTS})::int4 AS drifting,
         count(*) FILTER (WHERE stored.held IS NOT NULL)::int4 AS held,
         count(*) FILTER (WHERE stored.published_version IS DISTINCT FROM stored.version)::int4
           AS unpublished
  FROM device_configuration AS stored
  LEFT JOIN device_presence AS presence ON presence.device_id = stored.device_id`;

/**
 * Mends what a crash or a lost database left behind: documents that are not in their topics, topics of
 * devices that are gone, documents made with defaults that are no longer those of the type. At the first
 * sweep every topic is compared with its row; later ones look at rows that are not marked as published.
 */
export class Sweeper {
  readonly #parts: SweeperParts;
  readonly #changed = new Set<number>();
  #mustCompare = true;
  #mustRenewAll = true;
  #timer: NodeJS.Timeout | null = null;
  #work: Promise<void> | null = null;
  #isStopped = false;

  constructor(parts: SweeperParts) {
    this.#parts = parts;
  }

  /** Sweeps now and from then on. */
  start(): void {
    this.#timer = setInterval(() => {
      this.#mustRenewAll = true;
      this.#wake();
    }, this.#parts.sweepMs);
    this.#timer.unref();
    this.#wake();
  }

  /** Ends with the page under way. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#timer !== null) clearInterval(this.#timer);
    await this.#work;
  }

  /** A device is new or has another type: its document is made anew soon. */
  deviceChanged(deviceId: number): void {
    this.#changed.add(deviceId);
    if (this.#changed.size > CHANGED_MAX) this.renewLater();
    this.#wake();
  }

  /** Documents of many devices are to be made anew soon. */
  renewLater(): void {
    this.#changed.clear();
    this.#mustRenewAll = true;
    this.#wake();
  }

  /** Sweeps once, and resolves when all is as it should be, or the database is away. Never rejects. */
  async sweep(): Promise<void> {
    this.#mustRenewAll = true;
    this.#wake();
    while (this.#work !== null) await this.#work;
  }

  #wake(): void {
    if (this.#isStopped) return;
    this.#work ??= this.#run().finally(() => {
      this.#work = null;
    });
  }

  async #run(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    try {
      while (!this.#isStopped && (this.#mustRenewAll || this.#changed.size > 0)) {
        if (this.#mustRenewAll) await this.#sweepAll();
        else await this.#renewChanged();
      }
    } catch (err) {
      // Until the next sweep: what is to be done stands in the database.
      this.#parts.log.warn({ err }, 'configuration not swept, will be tried again');
    }
  }

  async #renewChanged(): Promise<void> {
    const deviceIds = [...this.#changed];
    this.#changed.clear();
    await this.#parts.renewal.run({ ...EVERYBODY, deviceIds }, () => !this.#isStopped);
  }

  async #sweepAll(): Promise<void> {
    this.#mustRenewAll = false;
    this.#changed.clear();
    if (this.#mustCompare) await this.#compareAll();
    else await this.#goThrough(UNPUBLISHED);
    await this.#parts.renewal.run(EVERYBODY, () => !this.#isStopped);
    await this.#count();
  }

  async #compareAll(): Promise<void> {
    const stale = new Set(this.#parts.wire.retainedTopics('v1/+/+/in/cfg'));
    await this.#goThrough(ALL, (row) => stale.delete(configurationTopic(row)));
    const topics = [...stale];
    for (let at = 0; at < topics.length && !this.#isStopped; at += PAGE_ROWS) {
      await this.#clear(topics.slice(at, at + PAGE_ROWS));
    }
    this.#mustCompare = this.#isStopped;
  }

  /**
   * Clears topics of devices that are gone. That of one which is there and of which nothing is wanted is of
   * a database from which an older backup was restored: nothing is what it is sent, under the next number,
   * for the numbers before it are known to the device.
   */
  async #clear(topics: readonly string[]): Promise<void> {
    const { pool, wire, publisher } = this.#parts;
    const names = topics.map((topic) => topic.split('/'));
    const slugs = [names.map(([, slug]) => slug), names.map(([, , slug]) => slug)];
    const { rows } = await guardStore(
      pool.query<Omit<Compared, 'version' | 'published_version'>>(BY_NAME, slugs),
    );
    const there = rows.filter(
      (row) => publishedVersionOf(wire.retained(configurationTopic(row))) > 0,
    );
    const kept = new Set(there.map((row) => configurationTopic(row)));
    await this.#republish(there.map((row) => row.device_id));
    const gone = topics.filter((topic) => !kept.has(topic));
    await Promise.all(gone.map((topic) => publisher.clear(topic)));
  }

  async #goThrough(text: string, look?: (row: Compared) => void): Promise<void> {
    let after = 0;
    while (!this.#isStopped) {
      const { rows } = await guardStore(this.#parts.pool.query<Compared>(text, [after]));
      const last = rows.at(-1);
      if (last === undefined) return;
      for (const row of rows) look?.(row);
      await this.#mend(rows);
      after = last.device_id;
    }
  }

  async #mend(rows: readonly Compared[]): Promise<void> {
    const { wire, publisher } = this.#parts;
    const wrong: number[] = [];
    const unmarked: { deviceId: number; version: number }[] = [];
    for (const row of rows) {
      const there = publishedVersionOf(wire.retained(configurationTopic(row)));
      if (there !== row.version) wrong.push(row.device_id);
      else if (row.published_version !== row.version) {
        unmarked.push({ deviceId: row.device_id, version: row.version });
      }
    }
    await publisher.mark(unmarked);
    await this.#republish(wrong);
  }

  /**
   * A topic that is ahead was published before the database was restored: the number goes past it. What has
   * become too big for its device waits.
   */
  async #republish(deviceIds: readonly number[]): Promise<void> {
    if (deviceIds.length === 0) return;
    const { pool, wire, publisher, metrics, now } = this.#parts;
    const at = new Date(now());
    const saves = await inTransaction(pool, async ({ client }) => {
      const held = await holdDevices(client, deviceIds);
      await addRows(client, held, at);
      const rows = await lockRows(client, held, at);
      const made = rows.map((row) => {
        const there = publishedVersionOf(wire.retained(configurationTopic(row)));
        const isAhead = there > row.version;
        const state = isAhead ? passNumber(row, there, at) : row;
        return { row, state, cause: isAhead ? ('number' as const) : null };
      });
      await saveRows(
        client,
        made.filter(({ cause }) => cause !== null),
      );
      return made;
    });
    metrics.versionsMade('number', saves.filter(({ cause }) => cause !== null).length);
    const fitting = saves.filter(({ row, state }) => fits(row, state));
    await publisher.publish(fitting.map((save) => committedOf(save)));
  }

  async #count(): Promise<void> {
    const { pool, metrics, now } = this.#parts;
    const { rows } = await guardStore(
      pool.query<{ drifting: number; held: number; unpublished: number }>(COUNTS, [
        new Date(now()),
      ]),
    );
    if (rows[0] !== undefined) metrics.swept(rows[0]);
  }
}

function fits(row: ConfigurationRow, { version, document }: ConfigurationState): boolean {
  return packetBytes(row, version, document) <= row.bytesMax;
}

import type { Registry } from 'prom-client';
import type { Database } from '../drizzle/database.ts';
import type { Logger } from '../log.ts';
import { BatchWriter, type WriterLimits } from './batch-writer.ts';
import type { Lane } from './lane.ts';
import { LaneStore, type Rates } from './lane-store.ts';
import type { Publication } from './message.ts';
import { MetricCatalog } from './metric-catalog.ts';
import { IngestMetrics } from './metrics.ts';
import { Pipeline, type PipelineLimits } from './pipeline.ts';
import { ReadingStore } from './reading-store.ts';

/** Bounds of ingest, each from one setting. */
export interface IngestLimits {
  readonly writer: WriterLimits;
  readonly pipeline: PipelineLimits;
  readonly rates: Rates;
  readonly organizationMetricsMax: number;
  readonly databaseTimeoutMs: number;
}

/** What ingest is made of. */
export interface IngestParts {
  readonly database: Database;
  readonly limits: IngestLimits;
  readonly registry: Registry;
  readonly log: Logger;
}

const HOUSEKEEPING_MS = 60_000;
const DAY_MS = 86_400_000;
/** Partitions are made for today and this many days ahead. */
const DAYS_AHEAD = 2;

/** From a publication to its COMMIT. The parts in the order that a message meets them. */
export class Ingest {
  readonly metrics = new IngestMetrics();
  readonly #lanes: LaneStore;
  readonly #pipeline: Pipeline;
  readonly #writer: BatchWriter;
  readonly #store: ReadingStore;
  readonly #log: Logger;
  #housekeeping: NodeJS.Timeout | undefined;

  constructor({ database, limits, registry, log }: IngestParts) {
    const { writer, pipeline, rates } = limits;
    this.#log = log;
    const catalog = new MetricCatalog(database.pool, limits.organizationMetricsMax);
    this.#lanes = new LaneStore(database.pool, catalog, rates);
    this.#store = new ReadingStore({
      url: database.url,
      hypertables: database.capabilities.hypertables,
      timeoutMs: limits.databaseTimeoutMs,
      log,
    });
    this.#writer = new BatchWriter(this.#store, writer, this.metrics, log);
    this.#pipeline = new Pipeline({
      lanes: this.#lanes,
      writer: this.#writer,
      limits: pipeline,
      metrics: this.metrics,
      log,
    });
    this.metrics.register(
      registry,
      { rowsMax: writer.queueRowsMax, bytesMax: writer.queueBytesMax },
      () => ({
        queuedRows: this.#writer.queuedRows,
        queuedBytes: this.#writer.queuedBytes,
        queuedMessages: this.#writer.queuedMessages,
        heldMessages: this.#pipeline.heldMessages,
        heldBytes: this.#pipeline.heldBytes,
        lanes: this.#lanes.size,
        isAway: this.#writer.isAway,
      }),
    );
  }

  /** True while commits fail and are repeated. */
  get isDatabaseAway(): boolean {
    return this.#writer.isAway;
  }

  /** Makes the partitions of the next days, now and every hour of need. */
  async start(): Promise<void> {
    await this.#store.ensurePartitions(daysAhead());
    this.#housekeeping = setInterval(() => this.#keepHouse(), HOUSEKEEPING_MS);
  }

  /**
   * The way in for a new connection of a device; give it back with {@link closeLane}.
   * @param address of the peer, for the limit by address; empty for none.
   */
  openLane(organizationId: number, deviceId: number, address = ''): Lane {
    return this.#lanes.acquire(organizationId, deviceId, address);
  }

  closeLane(lane: Lane): void {
    this.#lanes.release(lane);
  }

  /**
   * Notes which boot the device has said that its messages on this connection belong to; to be called
   * before those that come behind its `hello`. Their `seq` are then held against those of the same boot
   * that came over earlier connections, also before a restart of the program. Without it a `seq` is only
   * compared with others of the same connection.
   */
  setBoot(lane: Lane, boot: number): void {
    lane.setBoot(boot);
    void this.whenLoaded(lane);
  }

  /** Resolves when {@link storedSequence} knows, or the database does not answer. Rejects never. */
  whenLoaded({ device }: Lane): Promise<void> {
    return this.#lanes.load(device).catch((err: unknown) => {
      this.#log.debug({ err, deviceId: device.deviceId }, 'device not loaded');
    });
  }

  /**
   * The highest `seq` of the device's boot such that it and all before it, from the first that came, are
   * committed. Null when none is, or nothing is known yet: see {@link whenLoaded}.
   */
  storedSequence(lane: Lane): number | null {
    return lane.storedSequence;
  }

  /** See {@link Pipeline.accept}. */
  accept(lane: Lane, publication: Publication): boolean {
    return this.#pipeline.accept(lane, publication);
  }

  /** Resolves when all that was taken in is stored, or after `timeoutMs`. */
  async drain(timeoutMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    await Promise.race([this.#writer.drain(), late]);
    clearTimeout(timer);
  }

  /** Gives up what is not stored; it stays unacknowledged. */
  async stop(): Promise<void> {
    clearInterval(this.#housekeeping);
    await this.#writer.stop();
  }

  #keepHouse(): void {
    this.#lanes.forgetIdle();
    this.#store.ensurePartitions(daysAhead()).catch((err: unknown) => {
      this.#log.warn({ err }, 'partitions ahead not made, will be tried again');
    });
  }
}

function daysAhead(): number[] {
  const today = Math.floor(Date.now() / DAY_MS);
  return Array.from({ length: DAYS_AHEAD + 1 }, (_, ahead) => today + ahead);
}

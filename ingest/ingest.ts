import type { Registry } from 'prom-client';
import type { Database } from '../drizzle/database.ts';
import type { Logger } from '../log.ts';
import { BatchWriter, type WriterLimits } from './batch-writer.ts';
import type { Lane, LaneRates } from './lane.ts';
import { LaneStore } from './lane-store.ts';
import type { Publication } from './message.ts';
import { MetricCatalog } from './metric-catalog.ts';
import { IngestMetrics } from './metrics.ts';
import { Pipeline, type PipelineLimits } from './pipeline.ts';
import { ReadingStore } from './reading-store.ts';

/** Bounds of ingest, each from one setting. */
export interface IngestLimits {
  readonly writer: WriterLimits;
  readonly pipeline: PipelineLimits;
  readonly rates: LaneRates;
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

  /** The lane of a device for a new connection; give it back with {@link closeLane}. */
  openLane(organizationId: number, deviceId: number): Lane {
    return this.#lanes.acquire(organizationId, deviceId);
  }

  closeLane(lane: Lane): void {
    this.#lanes.release(lane);
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

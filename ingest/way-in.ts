import type { Database } from '../drizzle/database.ts';
import type { Logger } from '../log.ts';
import { BatchWriter } from './batch-writer.ts';
import type { ClockMetrics } from './clock-metrics.ts';
import type { OnNumber } from './batch.ts';
import { LaneStore, type Rates } from './lane-store.ts';
import type { MetricCatalog } from './metric-catalog.ts';
import type { MetricUnits } from './metric-units.ts';
import type { IngestMetrics } from './metrics.ts';
import type { ReadingObserver } from './observer.ts';
import type { PipelineLimits } from './pipeline-parts.ts';
import { Pipeline } from './pipeline.ts';
import { ReadingStore } from './reading-store.ts';
import type { PendingSequence } from './spool/pending-sequences.ts';
import type { BatchSpool, WriterLimits } from './writer-limits.ts';

/** Bounds of a way in. */
export interface WayInLimits {
  readonly writer: WriterLimits;
  readonly pipeline: PipelineLimits;
  readonly rates: Rates;
}

/** What a way in is made with. */
export interface WayInParts {
  readonly database: Database;
  readonly catalog: MetricCatalog;
  readonly units: MetricUnits;
  readonly metrics: IngestMetrics;
  readonly clockMetrics: ClockMetrics;
  readonly limits: WayInLimits;
  readonly timeoutMs: number;
  /** Readings from before this, in microseconds since 1970, are noted as late. */
  readonly lateBefore: () => number;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** See {@link LaneStore}: another one for each way in. */
  readonly residueOffset: number;
  readonly isReplay: boolean;
  readonly log: Logger;
  readonly spool?: BatchSpool | null;
  readonly pendingSequences?: (deviceId: number) => readonly PendingSequence[];
  readonly loadedNumbers?: (deviceId: number) => readonly PendingSequence[];
  readonly onNumber?: OnNumber | undefined;
  /** See {@link PipelineParts}. */
  readonly observer?: ReadingObserver | null | undefined;
}

/** From a publication to its COMMIT: the parts in the order that a message meets them. */
export interface WayIn {
  readonly lanes: LaneStore;
  readonly pipeline: Pipeline;
  readonly writer: BatchWriter;
  readonly store: ReadingStore;
}

/** Makes a way in, with a connection of its own to the database. */
export function createWayIn(parts: WayInParts): WayIn {
  const {
    database,
    catalog,
    units,
    metrics,
    limits,
    timeoutMs,
    lateBefore,
    log,
    spool = null,
  } = parts;
  const { rates } = limits;
  const { residueOffset, isReplay, pendingSequences, loadedNumbers } = parts;
  const numbers = { pendingSequences, loadedNumbers };
  const { pool } = database;
  const lanes = new LaneStore({ pool, catalog, rates, residueOffset, isReplay, ...numbers });
  const store = new ReadingStore({
    url: database.url,
    hypertables: database.capabilities.hypertables,
    timeoutMs,
    lateBefore,
    log,
  });
  const { onNumber } = parts;
  const writer = new BatchWriter({ store, limits: limits.writer, metrics, log, spool, onNumber });
  const pipeline = new Pipeline({
    lanes,
    writer,
    limits: limits.pipeline,
    metrics,
    clockMetrics: parts.clockMetrics,
    log,
    spool,
    units,
    now: parts.now,
    observer: parts.observer,
  });
  return { lanes, pipeline, writer, store };
}

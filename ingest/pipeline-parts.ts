import type { TimeLimits } from '../firmware-protocol/time.ts';
import type { Logger } from '../log.ts';
import type { BatchWriter } from './batch-writer.ts';
import type { ClockMetrics } from './clock-metrics.ts';
import type { LaneStore } from './lane-store.ts';
import type { IngestMetrics } from './metrics.ts';
import type { MetricUnits } from './metric-units.ts';
import type { ReadingObserver } from './observer.ts';
import type { BatchSpool } from './writer-limits.ts';

/** Bounds of the pipeline. */
export interface PipelineLimits extends TimeLimits {
  readonly deviceMetricsMax: number;
  /** Payload bytes of one device that may wait before the queue. */
  readonly deviceHeldBytesMax: number;
  /** Payload bytes of all devices that may wait before the queue. */
  readonly heldBytesMax: number;
  /** What has waited so long for a lookup goes to the spool. */
  readonly spoolAfterMs: number;
  /** Payload bytes that a device may log; 0 is no limit. */
  readonly deviceLogBytesPerSecond: number;
}

/** What the pipeline is made of. */
export interface PipelineParts {
  readonly lanes: LaneStore;
  readonly writer: BatchWriter;
  readonly limits: PipelineLimits;
  readonly metrics: IngestMetrics;
  readonly log: Logger;
  /** Where messages go whose device or metrics cannot be looked up; null: they wait. */
  readonly spool?: BatchSpool | null;
  /** Told of the units that messages name. */
  readonly units?: MetricUnits | null;
  readonly clockMetrics?: ClockMetrics;
  /** Told of readings and events before they are stored; null costs nothing. */
  readonly observer?: ReadingObserver | null | undefined;
  /** Milliseconds since 1970; the wall clock when left out. */
  readonly now?: () => number;
}

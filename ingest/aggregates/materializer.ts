import type pg from 'pg';
import type { Level } from './levels.ts';
import type { Watermarks } from './watermarks.ts';

/** A span of time, milliseconds since 1970, without its end. */
export interface Span {
  readonly fromMs: number;
  readonly toMs: number;
}

/**
 * The time, ms since 1970, before which raw readings were deleted, or are about to be: the aggregates of
 * before are all that is left and must stay as they are.
 */
export interface RawCuts {
  /** Of an organization; of a device that is gone (null) nothing is kept. */
  of(organizationId: number | null): number;
  /** The latest of all organizations. */
  readonly latestMs: number;
}

/** Which notes of late rows are worked off, and which of their buckets are made anew. */
export interface DirtyBounds {
  readonly cuts: RawCuts;
  /** The highest id when the run began: devices that are always late would never let it end. */
  readonly lastId: string;
}

/** How rollups are made: in tables of our own, or as continuous aggregates. */
export interface Materializer {
  /**
   * Makes the buckets of a span of a level, from the level below; those that are there already are made
   * again. Nothing of it is seen before the watermark moves on, so that it may take several statements.
   * What the database cannot compute with is left out, see `makeSpans`.
   */
  materialize(client: pg.Client, level: Level, span: Span): Promise<void>;
  /**
   * Takes notes out of `dirty_range` and makes their buckets anew, as far as they are materialised and
   * their raw readings are kept.
   * @returns how many notes were taken; 0 when none are left.
   */
  takeDirty(client: pg.Client, watermarks: Watermarks, bounds: DirtyBounds): Promise<number>;
  /** Beginning of the oldest partition of `reading`, ms since 1970; null when it has none. */
  findOldest(client: pg.Client): Promise<number | null>;
  /** Forgets which partitions of rollups exist: some were dropped, or a transaction has failed. */
  forgetPartitions(): void;
}

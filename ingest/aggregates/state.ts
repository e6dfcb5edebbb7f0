import type pg from 'pg';
import { highestOf, NO_WATERMARKS, readWatermarks, type Watermarks } from './watermarks.ts';

/** What any node may know of the jobs, as the database has it. */
export interface AggregateState {
  readonly watermarks: Watermarks;
  /** When each job last came through on any node, ms since 1970. */
  readonly succeededMs: ReadonlyMap<string, number>;
  /** Notes that wait, counted up to {@link DIRTY_COUNTED_MAX}. */
  readonly dirtyRanges: number;
  /** Hours of devices that aggregates lack, counted as far. */
  readonly skippedHours: number;
  /** Native partitions of days to come; 0 with chunks, which are made when they are needed. */
  readonly partitionsAhead: number;
}

/** How far notes are counted. */
export const DIRTY_COUNTED_MAX = 100_000;

/** What is known before the first look. */
export const NO_STATE: AggregateState = {
  watermarks: NO_WATERMARKS,
  succeededMs: new Map(),
  dirtyRanges: 0,
  skippedHours: 0,
  partitionsAhead: 0,
};

/** Reads the state. */
export async function readState(client: pg.Client): Promise<AggregateState> {
  const watermarks = await readWatermarks(client);
  const jobs = await client.query<{ job: string; succeeded_ms: number }>(
    `SELECT job, (extract(epoch FROM succeeded_at) * 1000)::float8 AS succeeded_ms
     FROM aggregate_job`,
  );
  const counts = await client.query<{ dirty: number; skipped: number; ahead: number }>(
    `SELECT (SELECT count(*)::int4
             FROM (SELECT FROM dirty_range LIMIT ${DIRTY_COUNTED_MAX}) AS counted) AS dirty,
            (SELECT count(*)::int4
             FROM (SELECT FROM aggregate_skip LIMIT ${DIRTY_COUNTED_MAX}) AS counted) AS skipped,
            (SELECT count(*)::int4
             FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
             WHERE inhparent = 'reading'::regclass AND relname ~ '^reading_\\d{8}$'
               AND right(relname, 8) > to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')) AS ahead`,
  );
  return {
    watermarks,
    succeededMs: new Map(jobs.rows.map(({ job, succeeded_ms }) => [job, succeeded_ms])),
    dirtyRanges: counts.rows[0]?.dirty ?? 0,
    skippedHours: counts.rows[0]?.skipped ?? 0,
    partitionsAhead: counts.rows[0]?.ahead ?? 0,
  };
}

/** Notes that a job came through. */
export async function noteSuccess(client: pg.Client, job: string): Promise<void> {
  await client.query(
    `INSERT INTO aggregate_job VALUES ($1, now())
     ON CONFLICT (job) DO UPDATE SET succeeded_at = excluded.succeeded_at`,
    [job],
  );
}

/** The highest watermark in microseconds since 1970. */
export function watermarkMicros({ watermarks }: AggregateState): number {
  return highestOf(watermarks) * 1000;
}

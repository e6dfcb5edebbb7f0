/** A rollup of readings: one row for each series and bucket that has a number. */
export interface Level {
  /** As in the names of tables, settings and the API. */
  readonly name: LevelName;
  /** Length of a bucket, in ms. Buckets start at multiples of it since 1970, in UTC. */
  readonly widthMs: number;
  /** The relation that holds it up to this moment. */
  readonly relation: string;
  /** Where it is materialised by us, without continuous aggregates. */
  readonly table: string;
  /** Days of one partition of that table. */
  readonly partitionDays: number;
}

/** Name of a {@link Level}. */
export type LevelName = '1m' | '1h' | '1d';

/** From the finest to the coarsest; each is made of the one before it, the first of `reading`. */
export const LEVELS = [
  {
    name: '1m',
    widthMs: 60_000,
    relation: 'reading_1m',
    table: 'rollup_1m',
    partitionDays: 7,
  },
  {
    name: '1h',
    widthMs: 3_600_000,
    relation: 'reading_1h',
    table: 'rollup_1h',
    partitionDays: 90,
  },
  {
    name: '1d',
    widthMs: 86_400_000,
    relation: 'reading_1d',
    table: 'rollup_1d',
    partitionDays: 720,
  },
] as const satisfies readonly Level[];

/** One hour, the unit in which writers note what is no longer right, in ms. */
export const HOUR_MS = 3_600_000;
/** One UTC day, in ms. */
export const DAY_MS = 86_400_000;

/** The beginning of the bucket that a time falls into. */
export function floorTo(timeMs: number, widthMs: number): number {
  return Math.floor(timeMs / widthMs) * widthMs;
}

import type pg from 'pg';
import { LEVELS, type LevelName } from './levels.ts';

/** End of the last materialised bucket of each level, ms since 1970; `-Infinity` before the first. */
export type Watermarks = Readonly<Record<LevelName, number>>;

/** What {@link Watermarks} are before any were read. */
export const NO_WATERMARKS: Watermarks = { '1m': -Infinity, '1h': -Infinity, '1d': -Infinity };

/** Reads the watermarks. */
export async function readWatermarks(client: pg.Client): Promise<Watermarks> {
  const { rows } = await client.query<{ level: LevelName; watermark_ms: number }>(
    `SELECT level, (extract(epoch FROM watermark) * 1000)::float8 AS watermark_ms
     FROM aggregate_watermark`,
  );
  const found = new Map(rows.map(({ level, watermark_ms }) => [level, watermark_ms]));
  const read = (name: LevelName): number => found.get(name) ?? -Infinity;
  return { '1m': read('1m'), '1h': read('1h'), '1d': read('1d') };
}

/** Moves a watermark on. It never goes back, whatever the clock says. */
export async function advanceWatermark(
  client: pg.Client,
  level: LevelName,
  toMs: number,
): Promise<void> {
  await client.query(
    `UPDATE aggregate_watermark SET watermark = $2::timestamptz
     WHERE level = $1 AND watermark < $2::timestamptz`,
    [level, isoTime(toMs)],
  );
}

/** The highest watermark of all levels, ms since 1970. */
export function highestOf(watermarks: Watermarks): number {
  return Math.max(...LEVELS.map(({ name }) => watermarks[name]));
}

/** A time for a statement: ISO 8601 in UTC, or what PostgreSQL calls the beginning of all time. */
export function isoTime(timeMs: number): string {
  return timeMs === -Infinity ? '-infinity' : new Date(timeMs).toISOString();
}

/**
 * The time that jobs go by: the earlier one of our clock and the database's, so that one clock that
 * runs ahead materialises nothing that is still to come.
 */
export async function findNow(client: pg.Client, clock: () => number): Promise<number> {
  const { rows } = await client.query<{ now_ms: number }>(
    'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS now_ms',
  );
  return Math.min(clock(), rows[0]?.now_ms ?? -Infinity);
}

import type pg from 'pg';
import { DAY_MS, HOUR_MS, LEVELS, floorTo, type Level } from './levels.ts';
import type { DirtyBounds, Materializer, Span } from './materializer.ts';
import { ALL_DEVICES, forgetSkips, makeSpans, type DeviceSpan, type Skip } from './skip.ts';
import { isoTime, type Watermarks } from './watermarks.ts';

/** Notes that one call looks at. */
const NOTES_MAX = 100_000;
/** Longest window of one refresh after late rows, and how many windows one call refreshes. */
const WINDOW_MS_MAX = DAY_MS;
const WINDOWS_AT_ONCE = 24;

/**
 * Rollups as continuous aggregates of TimescaleDB. Refreshed by our own calls and by no policy: one
 * whose window has moved on while its jobs failed would leave a hole behind it for good, below a
 * watermark that says that all is there.
 */
export class ContinuousMaterializer implements Materializer {
  readonly #onSkip: (skip: Skip) => void;

  /** @param onSkip told of each hour that is left out; of all devices, as they are refreshed at once. */
  constructor(onSkip: (skip: Skip) => void) {
    this.#onSkip = onSkip;
  }

  async materialize(client: pg.Client, level: Level, span: Span): Promise<void> {
    if (level.name === '1m') await summarizeIndexes(client, span.fromMs);
    await this.#refresh(client, level, span);
  }

  /**
   * A refresh takes no transaction around it, so notes are deleted by their ids once it is done. The
   * refresh begins after they were read, and sees every late row that was committed with one; a note
   * that is committed meanwhile has another id and stays. What fails is done again, and does no harm.
   */
  async takeDirty(
    client: pg.Client,
    watermarks: Watermarks,
    { cuts, lastId }: DirtyBounds,
  ): Promise<number> {
    const { rows } = await client.query<{ id: string; hour_ms: number }>(
      `SELECT dirty_range_id AS id, (extract(epoch FROM hour) * 1000)::float8 AS hour_ms
       FROM dirty_range WHERE dirty_range_id <= $1 ORDER BY dirty_range_id LIMIT $2`,
      [lastId, NOTES_MAX],
    );
    const notes = rows.map(({ id, hour_ms }) => ({ id, hourMs: floorTo(hour_ms, HOUR_MS) }));
    const hours = [...new Set(notes.map(({ hourMs }) => hourMs))].sort((a, b) => a - b);
    const windows = windowsOf(hours).slice(0, WINDOWS_AT_ONCE);
    const endMs = windows.at(-1)?.toMs ?? -Infinity;
    const taken = notes.filter(({ hourMs }) => hourMs < endMs).map(({ id }) => id);
    // All devices share a refresh: it must not reach back to where one has no raw readings any more.
    const kept = windows
      .map(({ fromMs, toMs }) => ({ fromMs: Math.max(fromMs, cuts.latestMs), toMs }))
      .filter(({ fromMs, toMs }) => fromMs < toMs);
    for (const window of kept) await this.#refreshLevels(client, watermarks, window);
    await client.query('DELETE FROM dirty_range WHERE dirty_range_id = ANY($1::int8[])', [taken]);
    return taken.length;
  }

  async findOldest(client: pg.Client): Promise<number | null> {
    const { rows } = await client.query<{ oldest_ms: number | null }>(
      `SELECT (extract(epoch FROM min(range_start)) * 1000)::float8 AS oldest_ms
       FROM timescaledb_information.chunks WHERE hypertable_name = 'reading'`,
    );
    return rows[0]?.oldest_ms ?? null;
  }

  forgetPartitions(): void {
    // Chunks are made by the database.
  }

  async #refreshLevels(client: pg.Client, watermarks: Watermarks, window: Span): Promise<void> {
    for (const level of LEVELS) {
      const fromMs = floorTo(window.fromMs, level.widthMs);
      const whole = floorTo(window.toMs + level.widthMs - 1, level.widthMs);
      const toMs = Math.min(whole, watermarks[level.name]);
      if (fromMs >= toMs) continue;
      const made = await this.#refresh(client, level, { fromMs, toMs });
      await forgetSkips(client, level, made);
    }
  }

  #refresh(client: pg.Client, level: Level, span: Span): Promise<DeviceSpan[]> {
    // There is one, or a half of it.
    const make = async (spans: readonly DeviceSpan[]): Promise<void> => {
      for (const { fromMs, toMs } of spans) {
        await client.query(
          `CALL refresh_continuous_aggregate('${level.relation}', '${isoTime(fromMs)}', '${isoTime(toMs)}')`,
        );
      }
    };
    const maker = { client, level, make, onSkip: this.#onSkip };
    return makeSpans(maker, [{ deviceId: ALL_DEVICES, ...span }]);
  }
}

/** Consecutive hours together, in windows of at most a day. @param hours sorted. */
export function windowsOf(hours: readonly number[]): Span[] {
  const windows: { fromMs: number; toMs: number }[] = [];
  for (const hour of hours) {
    const last = windows.at(-1);
    if (last?.toMs === hour && hour - last.fromMs < WINDOW_MS_MAX) last.toMs = hour + HOUR_MS;
    else windows.push({ fromMs: hour, toMs: hour + HOUR_MS });
  }
  return windows;
}

/**
 * Tells the BRIN indexes of the newest chunks about rows that came since: what they do not know is
 * read whole, chunk by chunk, at every refresh.
 */
async function summarizeIndexes(client: pg.Client, fromMs: number): Promise<void> {
  await client.query(
    `SELECT brin_summarize_new_values(indexrelid)
     FROM timescaledb_information.chunks
     JOIN pg_index ON indrelid = format('%I.%I', chunk_schema, chunk_name)::regclass
     JOIN pg_class ON pg_class.oid = indexrelid
     JOIN pg_am ON pg_am.oid = pg_class.relam AND amname = 'brin'
     WHERE hypertable_name = 'reading' AND range_end > $1::timestamptz`,
    [isoTime(fromMs)],
  );
}

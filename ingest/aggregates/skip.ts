import type pg from 'pg';
import { HOUR_MS, floorTo, type Level, type LevelName } from './levels.ts';
import type { Span } from './materializer.ts';
import { isoTime } from './watermarks.ts';

/** Longest text of an error that is kept, in characters. */
const ERROR_CHARS_MAX = 200;

/** Stands for all devices in a {@link DeviceSpan}. */
export const ALL_DEVICES = 0;

/** A span of one device, or of all. */
export interface DeviceSpan extends Span {
  readonly deviceId: number;
}

/** What was left out of a level, because the database cannot compute with what is stored there. */
export interface Skip {
  readonly level: LevelName;
  readonly deviceId: number;
  /** Beginning of the hour, or of the day, ms since 1970. */
  readonly hourMs: number;
  /** What the database said. */
  readonly error: string;
  /** False when it was left out before. */
  readonly isNew: boolean;
}

/** How the buckets of spans are made. */
export interface SpanMaker {
  readonly client: pg.Client;
  readonly level: Level;
  /** Makes the buckets of some spans, all or none of them. */
  readonly make: (spans: readonly DeviceSpan[]) => Promise<unknown>;
  readonly onSkip: (skip: Skip) => void;
}

/**
 * Makes the buckets of spans. When the database cannot compute with what is stored there (class 22 of
 * SQLSTATE: an overflow, say), halves are made, down to an hour of one device: that one is noted in
 * `aggregate_skip` and left out, so that no device holds up the aggregates of others. A bad hour among
 * n costs about 2 log2 n statements, and as much work again as all of them.
 * @returns the spans that were made.
 * @throws whatever else a statement ends with.
 */
export async function makeSpans(
  maker: SpanMaker,
  spans: readonly DeviceSpan[],
): Promise<DeviceSpan[]> {
  const made: DeviceSpan[] = [];
  const waiting = [spans];
  for (let part = waiting.pop(); part !== undefined; part = waiting.pop()) {
    try {
      await maker.make(part);
      made.push(...part);
    } catch (error) {
      if (!isValueFault(error)) throw error;
      const halves = halvesOf(part, unitOf(maker.level));
      if (halves.length === 0) await skip(maker, part, error);
      waiting.push(...halves);
    }
  }
  return made;
}

/** Whether the database could not compute with a value that is stored. */
export function isValueFault(error: unknown): error is Error {
  if (!(error instanceof Error) || !('code' in error)) return false;
  return typeof error.code === 'string' && /^22...$/.test(error.code);
}

/** Forgets what was left out of spans that are made by now. */
export async function forgetSkips(
  client: pg.Client,
  level: Level,
  made: readonly DeviceSpan[],
): Promise<void> {
  await client.query(
    `DELETE FROM aggregate_skip
     USING unnest($2::int4[], $3::timestamptz[], $4::timestamptz[]) AS made (device_id, start, "end")
     WHERE level = $1 AND aggregate_skip.device_id = made.device_id
       AND hour >= made.start AND hour < made."end"`,
    [
      level.name,
      made.map(({ deviceId }) => deviceId),
      made.map(({ fromMs }) => isoTime(fromMs)),
      made.map(({ toMs }) => isoTime(toMs)),
    ],
  );
}

/** Forgets what was left out before a time: its readings are deleted, and nothing can be done about it. */
export async function forgetOldSkips(client: pg.Client, beforeMs: number): Promise<void> {
  await client.query('DELETE FROM aggregate_skip WHERE hour < $1::timestamptz', [
    isoTime(beforeMs),
  ]);
}

async function skip(
  { client, level, onSkip }: SpanMaker,
  spans: readonly DeviceSpan[],
  error: Error,
): Promise<void> {
  for (const { deviceId, fromMs } of spans) {
    const hourMs = floorTo(fromMs, unitOf(level));
    const text = error.message.slice(0, ERROR_CHARS_MAX);
    const { rows } = await client.query<{ is_new: boolean }>(
      `INSERT INTO aggregate_skip VALUES ($1, $2, $3::timestamptz, $4, now())
       ON CONFLICT (level, device_id, hour) DO UPDATE
       SET error = excluded.error, skipped_at = excluded.skipped_at
       RETURNING xmax = 0 AS is_new`,
      [level.name, deviceId, isoTime(hourMs), text],
    );
    const isNew = rows[0]?.is_new ?? true;
    onSkip({ level: level.name, deviceId, hourMs, error: text, isNew });
  }
}

/** Two halves of some spans, or of the time of a single one; none of an hour of one device. */
function halvesOf(spans: readonly DeviceSpan[], unitMs: number): (readonly DeviceSpan[])[] {
  const [first] = spans;
  if (first === undefined) return [];
  if (spans.length > 1) {
    const middle = Math.ceil(spans.length / 2);
    return [spans.slice(0, middle), spans.slice(middle)];
  }
  const { fromMs, toMs } = first;
  const nextMs = floorTo(fromMs, unitMs) + unitMs;
  const middleMs = Math.max(floorTo((fromMs + toMs) / 2, unitMs), nextMs);
  if (middleMs >= toMs) return [];
  return [[{ ...first, toMs: middleMs }], [{ ...first, fromMs: middleMs }]];
}

/** The least that is left out. */
function unitOf({ widthMs }: Level): number {
  return Math.max(widthMs, HOUR_MS);
}

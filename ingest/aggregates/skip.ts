import type pg from 'pg';
import { HOUR_MS, floorTo, type Level, type LevelName } from './levels.ts';
import type { Span } from './materializer.ts';
import { isoTime } from './watermarks.ts';

/** Longest text of an error that is kept, in characters. */
const ERROR_CHARS_MAX = 200;

/** A span of one device, or of all. */
export interface DeviceSpan extends Span {
  readonly deviceId: number;
}

/** Stands for all devices in a {@link DeviceSpan}. */
export const ALL_DEVICES = 0;

/** What was left out of a level, because the database cannot compute with what is stored there. */
export interface Skip {
  readonly level: LevelName;
  readonly deviceId: number;
  /** Beginning of the hour, or of the day, ms since 1970. */
  readonly hourMs: number;
  /** What the database said. */
  readonly error: string;
  /** Whether it was not known of the hour. */
  readonly isNew: boolean;
}

/** Told of each {@link Skip}. */
export type OnSkip = (skip: Skip) => void;

/** What {@link makeSpans} needs besides the spans. */
export interface SpanMaker {
  readonly client: pg.Client;
  readonly level: Level;
  /** Makes the buckets of some spans, all or none of them. */
  make(spans: readonly DeviceSpan[]): Promise<void>;
  readonly onSkip: OnSkip;
}

/**
 * Makes the buckets of spans. When the database cannot compute with what is stored in them (class 22 of
 * SQLSTATE: an overflow, say), halves are tried, down to an hour of one device, which is left out and
 * noted in `aggregate_skip`: one device must not hold up the aggregates of the others. A bad hour among
 * n spans costs about 2 log2 n statements more.
 * @throws whatever else a statement ends with.
 */
export async function makeSpans(maker: SpanMaker, spans: readonly DeviceSpan[]): Promise<void> {
  const waiting = [spans];
  for (let part = waiting.pop(); part !== undefined; part = waiting.pop()) {
    try {
      await maker.make(part);
    } catch (error) {
      if (!isValueFault(error)) throw error;
      const halves = halvesOf(part, unitOf(maker.level));
      if (halves.length > 0) waiting.push(...halves);
      else await Promise.all(part.map((span) => noteSkip(maker, span, error)));
    }
  }
}

/** Forgets what was left out of spans that are made anew; before they are. */
export async function findSkips(client: pg.Client, level: Level): Promise<ReadonlySet<string>> {
  const { rows } = await client.query<{ key: string }>('', [level.name]);
  return new Set(rows.map(({ key }) => key));
}

function unitOf({ widthMs }: Level): number {
  return Math.max(widthMs, HOUR_MS);
}

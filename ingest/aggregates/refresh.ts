import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { DAY_MS, HOUR_MS, LEVELS, floorTo, type Level } from './levels.ts';
import type { Materializer } from './materializer.ts';
import { readRawCuts, withRawLock } from './raw-deletion.ts';
import { advanceWatermark, findNow, readWatermarks, type Watermarks } from './watermarks.ts';

/** Time for new buckets, and for late rows, in one run, in ms; what is left waits for the next. */
const NEW_MS_MAX = 20_000;
const DIRTY_MS_MAX = 10_000;
/** Steps are made longer when one took less than the first, shorter beyond the second. */
const STEP_SHORT_MS = 300;
const STEP_LONG_MS = 2000;
/** The longest step of each level, and the least part of it that is tried. */
const STEP_MAX: Readonly<Record<Level['name'], number>> = {
  '1m': 6 * HOUR_MS,
  '1h': 4 * DAY_MS,
  '1d': 60 * DAY_MS,
};
const SHARE_MIN = 1 / 512;
/** Rows that are not noted in `dirty_range` are at most so old when their transaction begins, in ms. */
const UNNOTED_MS_MAX = 60_000;

/**
 * How long a bucket must have ended before it is materialised. A row that its writer did not note as
 * late is at most 60 s old when its transaction is made up, and that is committed or given up within
 * the bound of the database; as much again is for clocks of nodes that differ.
 */
export function marginMs(databaseTimeoutMs: number): number {
  return UNNOTED_MS_MAX + 2 * databaseTimeoutMs;
}

/** What {@link Refresh} needs. */
export interface RefreshDeps {
  readonly materializer: Materializer;
  readonly databaseTimeoutMs: number;
  readonly clock: () => number;
  readonly isStopping: () => boolean;
  /** Told how many notes of late rows were worked off. */
  readonly onTaken: (notes: number) => void;
}

/** Keeps the rollups up: new buckets in order of time, then the hours that late rows came for. */
export class Refresh {
  readonly #deps: RefreshDeps;
  /** Part of the longest step that is done at once. */
  #share = 1 / 32;

  constructor(deps: RefreshDeps) {
    this.#deps = deps;
  }

  /** One run, bounded in time. @returns whether more is to be done at once. */
  async run(client: pg.Client): Promise<boolean> {
    const { materializer, clock } = this.#deps;
    const nowMs = await findNow(client, clock);
    try {
      const isBehind = await this.#materializeNew(client, nowMs);
      const isDirty = await this.#takeDirty(client);
      return isBehind || isDirty;
    } catch (error) {
      materializer.forgetPartitions();
      // It may have been too much for one statement.
      this.#share = Math.max(this.#share / 4, SHARE_MIN);
      throw error;
    }
  }

  async #materializeNew(client: pg.Client, nowMs: number): Promise<boolean> {
    const until = performance.now() + NEW_MS_MAX;
    const watermarks = { ...(await readWatermarks(client)) };
    let belowMs = nowMs - marginMs(this.#deps.databaseTimeoutMs);
    let isBehind = false;
    for (const level of LEVELS) {
      const endMs = floorTo(belowMs, level.widthMs);
      watermarks[level.name] = await this.#advance(client, level, {
        fromMs: watermarks[level.name],
        endMs,
        until,
      });
      if (watermarks[level.name] < endMs) isBehind = true;
      belowMs = watermarks[level.name];
    }
    return isBehind;
  }

  /** @returns the watermark it came to. */
  async #advance(
    client: pg.Client,
    level: Level,
    { fromMs, endMs, until }: { fromMs: number; endMs: number; until: number },
  ): Promise<number> {
    const { materializer, isStopping } = this.#deps;
    let atMs = fromMs;
    if (atMs === -Infinity && endMs !== -Infinity) {
      const oldestMs = (await materializer.findOldest(client)) ?? endMs;
      atMs = floorTo(Math.min(oldestMs, endMs), level.widthMs);
      await advanceWatermark(client, level.name, atMs);
    }
    while (atMs < endMs && performance.now() < until && !isStopping()) {
      const toMs = Math.min(endMs, atMs + this.#stepOf(level));
      const startedAt = performance.now();
      await materializer.materialize(client, level, { fromMs: atMs, toMs });
      await advanceWatermark(client, level.name, toMs);
      const tookMs = performance.now() - startedAt;
      this.#adaptStep(tookMs);
      atMs = toMs;
      // Catching up leaves half of the time to others.
      if (atMs < endMs) await delay(Math.min(tookMs, STEP_LONG_MS));
    }
    return atMs;
  }

  #stepOf({ name, widthMs }: Level): number {
    return Math.max(floorTo(STEP_MAX[name] * this.#share, widthMs), widthMs);
  }

  #adaptStep(tookMs: number): void {
    if (tookMs < STEP_SHORT_MS) this.#share = Math.min(this.#share * 2, 1);
    if (tookMs > STEP_LONG_MS) this.#share = Math.max(this.#share / 2, SHARE_MIN);
  }

  async #takeDirty(client: pg.Client): Promise<boolean> {
    const { materializer, isStopping, onTaken } = this.#deps;
    const until = performance.now() + DIRTY_MS_MAX;
    const watermarks: Watermarks = await readWatermarks(client);
    const lastId = await findLastNote(client);
    if (lastId === null) return false;
    while (!isStopping()) {
      const notes = await withRawLock(client, async () => {
        const cuts = await readRawCuts(client);
        return materializer.takeDirty(client, watermarks, { cuts, lastId });
      });
      onTaken(notes);
      if (notes === 0) return false;
      if (performance.now() > until) return true;
    }
    return true;
  }
}

async function findLastNote(client: pg.Client): Promise<string | null> {
  const { rows } = await client.query<{ last: string | null }>(
    'SELECT max(dirty_range_id) AS last FROM dirty_range',
  );
  return rows[0]?.last ?? null;
}

import type pg from 'pg';
import { DAY_MS, HOUR_MS, LEVELS, floorTo, type Level } from './levels.ts';
import type { DirtyBounds, Materializer, Span } from './materializer.ts';
import { spansStatement, spanStatement } from './rollup-statement.ts';
import { forgetSkips, isValueFault, makeSpans, type DeviceSpan, type Skip } from './skip.ts';
import { isoTime, type Watermarks } from './watermarks.ts';

/** Devices of one statement, so that it stays short however many there are. */
const DEVICES_AT_ONCE = 2000;
/** Notes that one transaction looks at, and notes that it takes. */
const NOTES_MAX = 20_000;
const TAKEN_MAX = 200_000;
/**
 * Hours of a device that one transaction makes anew: the most, at first, the least. All notes are gone
 * through for them, and an hour may hold 200 000 readings or one: more are made when it took less than
 * the first time, fewer beyond the second, in ms.
 */
const HOURS_MAX = 2000;
const HOURS_AT_FIRST = 200;
const HOURS_MIN = 4;
const SHORT_MS = 500;
const LONG_MS = 3000;

interface DirtyRow {
  device_id: number;
  organization_id: number | null;
  hour_ms: number;
  notes: number;
}

/** Rollups in tables of our own, where the database keeps none up. */
export class TableMaterializer implements Materializer {
  readonly #partitions = new Set<string>();
  readonly #onSkip: (skip: Skip) => void;
  #hoursAtOnce = HOURS_AT_FIRST;

  /** @param onSkip told of each hour of a device that is left out. */
  constructor(onSkip: (skip: Skip) => void) {
    this.#onSkip = onSkip;
  }

  async materialize(client: pg.Client, level: Level, span: Span): Promise<void> {
    const { fromMs, toMs } = span;
    await this.#ensurePartitions(client, level, [fromMs, toMs - 1]);
    const statement = spanStatement(level);
    let after = -1;
    for (;;) {
      const last = await lastOfSlice(client, after);
      if (last === null) return;
      try {
        await client.query(statement, [isoTime(fromMs), isoTime(toMs), after, last]);
      } catch (error) {
        if (!isValueFault(error)) throw error;
        const devices = await devicesOfSlice(client, after, last);
        const spans = devices.map((deviceId) => ({ deviceId, ...span }));
        const make = (part: readonly DeviceSpan[]) => client.query(...spansQuery(level, part));
        await makeSpans({ client, level, make, onSkip: this.#onSkip }, spans);
      }
      after = last;
    }
  }

  /**
   * A note is committed in one transaction with the late rows that it stands for. The snapshot of the
   * DELETE sees the notes that it takes, and so their rows; the statements behind it, in the same
   * transaction, have later snapshots and see them too. A note that is committed meanwhile is not
   * taken and stays for the next time. If anything fails, the notes come back with the rollback. So
   * no late row is missed, as long as every transaction that stores one also writes its note, even
   * when another note of the hour is there already.
   *
   * A row that was not noted is newer than 60 s when its transaction begins, and committed before
   * anything of its bucket is materialised: see `marginMs`.
   */
  async takeDirty(
    client: pg.Client,
    watermarks: Watermarks,
    { cuts, lastId }: DirtyBounds,
  ): Promise<number> {
    const startedAt = performance.now();
    const hours = this.#hoursAtOnce;
    // Stands when this fails: it may have been too much for one statement.
    this.#hoursAtOnce = Math.max(Math.ceil(hours / 4), HOURS_MIN);
    await client.query('BEGIN');
    const bounds = [lastId, NOTES_MAX, hours, TAKEN_MAX];
    const { rows } = await client.query<DirtyRow>(TAKE_DIRTY, bounds);
    const spans = rows
      .map(({ device_id, organization_id, hour_ms }) => ({
        deviceId: device_id,
        organizationId: organization_id,
        fromMs: floorTo(hour_ms, HOUR_MS),
      }))
      .filter(({ organizationId, fromMs }) => fromMs >= cuts.of(organizationId))
      .map(({ deviceId, fromMs }) => ({ deviceId, fromMs, toMs: fromMs + HOUR_MS }));
    for (const level of LEVELS) {
      const spansOfLevel = level.name === '1d' ? daysOf(spans) : spans;
      await this.#materializeSpans(client, level, cutAt(watermarks[level.name], spansOfLevel));
    }
    await client.query('COMMIT');
    this.#hoursAtOnce = nextHours(hours, performance.now() - startedAt);
    return rows.reduce((sum, { notes }) => sum + notes, 0);
  }

  async findOldest(client: pg.Client): Promise<number | null> {
    const { rows } = await client.query<{ oldest: string | null }>(
      `SELECT min(substr(relname, 9)) AS oldest
       FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
       WHERE inhparent = 'reading'::regclass AND relname ~ '^reading_\\d{8}$'`,
    );
    const oldest = rows[0]?.oldest ?? null;
    if (oldest === null) return null;
    return Date.parse(`${oldest.slice(0, 4)}-${oldest.slice(4, 6)}-${oldest.slice(6)}T00:00:00Z`);
  }

  forgetPartitions(): void {
    this.#partitions.clear();
  }

  /** In a transaction, which goes on whatever the values are. */
  async #materializeSpans(
    client: pg.Client,
    level: Level,
    spans: readonly DeviceSpan[],
  ): Promise<void> {
    if (spans.length === 0) return;
    await this.#ensurePartitions(
      client,
      level,
      spans.flatMap(({ fromMs, toMs }) => [fromMs, toMs - 1]),
    );
    const make = (part: readonly DeviceSpan[]) =>
      inSavepoint(client, () => client.query(...spansQuery(level, part)));
    const made = await makeSpans({ client, level, make, onSkip: this.#onSkip }, spans);
    await forgetSkips(client, level, made);
  }

  async #ensurePartitions(
    client: pg.Client,
    { table, partitionDays }: Level,
    times: readonly number[],
  ): Promise<void> {
    for (const start of new Set(times.map((time) => floorTo(time, partitionDays * DAY_MS)))) {
      const key = `${table} ${start}`;
      if (this.#partitions.has(key)) continue;
      await client.query('SELECT rollup_partition_ensure($1::regclass, $2, $3::timestamptz)', [
        table,
        partitionDays,
        isoTime(start),
      ]);
      this.#partitions.add(key);
    }
  }
}

/**
 * Takes the notes of some hours: those of the oldest notes. Of an hour with more than the bound some are
 * left, and it is made once more. Notes are never updated, so that a ctid stands for one of them.
 */
const TAKE_DIRTY = `
  WITH picked AS (
    SELECT DISTINCT device_id, hour
    FROM (SELECT device_id, hour FROM dirty_range WHERE dirty_range_id <= $1
          ORDER BY dirty_range_id LIMIT $2) AS oldest
    LIMIT $3
  ), taken AS (
    DELETE FROM dirty_range
    WHERE ctid = ANY (ARRAY (
      SELECT dirty_range.ctid FROM dirty_range JOIN picked USING (device_id, hour) LIMIT $4))
    RETURNING dirty_range.device_id, dirty_range.hour
  )
  SELECT taken.device_id, device.organization_id, count(*)::int4 AS notes,
         (extract(epoch FROM taken.hour) * 1000)::float8 AS hour_ms
  FROM taken LEFT JOIN device ON device.device_id = taken.device_id
  GROUP BY taken.device_id, device.organization_id, taken.hour`;

function nextHours(hours: number, tookMs: number): number {
  if (tookMs < SHORT_MS) return Math.min(hours * 2, HOURS_MAX);
  return tookMs > LONG_MS ? Math.max(Math.ceil(hours / 2), HOURS_MIN) : hours;
}

function spansQuery(level: Level, spans: readonly DeviceSpan[]): [string, unknown[]] {
  const values = [
    spans.map(({ deviceId }) => deviceId),
    spans.map(({ fromMs }) => isoTime(fromMs)),
    spans.map(({ toMs }) => isoTime(toMs)),
  ];
  return [spansStatement(level), values];
}

/** Undoes what fails, and no more of the transaction. */
async function inSavepoint(client: pg.Client, work: () => Promise<unknown>): Promise<void> {
  await client.query('SAVEPOINT spans');
  try {
    await work();
  } catch (error) {
    await client.query('ROLLBACK TO SAVEPOINT spans');
    throw error;
  } finally {
    await client.query('RELEASE SAVEPOINT spans');
  }
}

async function devicesOfSlice(client: pg.Client, after: number, last: number): Promise<number[]> {
  const { rows } = await client.query<{ device_id: number }>(
    'SELECT device_id FROM device WHERE device_id > $1 AND device_id <= $2 ORDER BY device_id',
    [after, last],
  );
  return rows.map(({ device_id }) => device_id);
}

async function lastOfSlice(client: pg.Client, after: number): Promise<number | null> {
  const { rows } = await client.query<{ last: number | null }>(
    `SELECT max(device_id) AS last
     FROM (SELECT device_id FROM device WHERE device_id > $1 ORDER BY device_id LIMIT $2) AS slice`,
    [after, DEVICES_AT_ONCE],
  );
  return rows[0]?.last ?? null;
}

/** What of the spans is below a watermark: what is above will be made when its time comes. */
function cutAt(watermarkMs: number, spans: readonly DeviceSpan[]): DeviceSpan[] {
  return spans
    .map((span) => ({ ...span, toMs: Math.min(span.toMs, watermarkMs) }))
    .filter(({ fromMs, toMs }) => fromMs < toMs);
}

function daysOf(spans: readonly DeviceSpan[]): DeviceSpan[] {
  const days = new Map<string, DeviceSpan>();
  for (const { deviceId, fromMs } of spans) {
    const day = floorTo(fromMs, DAY_MS);
    days.set(`${deviceId} ${day}`, { deviceId, fromMs: day, toMs: day + DAY_MS });
  }
  return [...days.values()];
}

import type pg from 'pg';
import { isUnavailable } from '../drizzle/sqlstate.ts';
import { reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import { pruneDeviceEvents, type DeviceEventBounds } from './device-event-pruning.ts';
import {
  DeviceEventRows,
  insertRows,
  plainAddress,
  plainTime,
  type DeviceEvent,
  type DeviceEventRow,
} from './device-event-row.ts';
import type { DeviceEventMetrics } from './metrics.ts';

/** What {@link DeviceEvents} needs. */
export interface DeviceEventsDeps {
  readonly pool: pg.Pool;
  readonly log: Logger;
  /** Monotonic, in milliseconds. */
  readonly now: () => number;
  /** Rows that may be in memory: those that wait and those that still count. */
  readonly rowsMax: number;
  readonly bounds: DeviceEventBounds;
  /** Makes the metrics; `rows` is asked at each scrape. */
  readonly createMetrics: (rows: () => number) => DeviceEventMetrics;
}

const FLUSH_MS = 1000;
/** And as much again by chance, so that several programs do not come back at once. */
const RETRY_MS = 1000;
const BATCH_ROWS_MAX = 500;
const WINDOW_MS = 10_000;
const PRUNE_MS = 60_000;
/** Devices whose rows are counted; beyond it all of them are looked at and the count starts over. */
const COUNTED_DEVICES_MAX = 100_000;

/**
 * Writes what happens to connections into `device_event`, in the background. Equal refusals of one
 * device at one address, or of an address that no device stands behind, are one row for ten seconds:
 * it is written within a second of the first, and again with the final count when its time is over.
 * While the database is away rows are kept, up to a bound, and tried again; beyond the bound they
 * are dropped and counted. A crash loses what was not written yet.
 */
export class DeviceEvents {
  readonly #deps: DeviceEventsDeps;
  readonly #metrics: DeviceEventMetrics;
  readonly #maker = new DeviceEventRows();
  /** Rows that still count, oldest first, by what makes events equal. */
  readonly #open = new Map<string, DeviceEventRow>();
  /** Rows to be written, oldest first. */
  readonly #waiting = new Set<DeviceEventRow>();
  /** Rows in memory: open, waiting, or both. */
  #rows = 0;
  /** Rows since somebody looked whether they are too many; null: those without a device. */
  readonly #writtenByDevice = new Map<number | null, number>([[null, Infinity]]);
  #flushTimer: NodeJS.Timeout | undefined;
  #pruneTimer: NodeJS.Timeout | undefined;
  #writing: Promise<boolean> | null = null;
  #isAway = false;
  #isStopped = false;

  constructor(deps: DeviceEventsDeps) {
    this.#deps = deps;
    this.#metrics = deps.createMetrics(() => this.#rows);
  }

  /** Begins to delete what is too old or too much, once a minute. */
  start(): void {
    this.#pruneTimer = setInterval(() => {
      this.prune().catch((error: unknown) => {
        this.#deps.log.warn({ reason: reasonOf(error) }, 'device events not pruned');
      });
    }, PRUNE_MS);
    this.#pruneTimer.unref();
  }

  /** Takes an event. Never throws and never waits: its row is written within a second or so. */
  note(event: DeviceEvent): void {
    this.#metrics.counted(event.kind);
    const isAddedUp = event.kind === 'refusal' || event.kind === 'identity';
    const key = isAddedUp ? equalityOf(event) : '';
    const now = this.#deps.now();
    const same = this.#open.get(key);
    if (same !== undefined && now < same.openUntil) {
      same.count += 1;
      same.lastOccurredAtMs = Math.max(same.lastOccurredAtMs, plainTime(event.occurredAtMs));
      return;
    }
    if (same !== undefined) this.#closeWindow(key, same);
    if (this.#rows >= this.#deps.rowsMax) {
      this.#metrics.dropped('queue_full', 1);
      return;
    }
    const row = this.#maker.make(event, isAddedUp ? now + WINDOW_MS : 0);
    this.#rows += 1;
    this.#waiting.add(row);
    if (isAddedUp) this.#open.set(key, row);
    this.#schedule(FLUSH_MS);
  }

  /**
   * Writes everything that is known now. Never rejects.
   * @returns false when the database is away and rows still wait.
   */
  flush(): Promise<boolean> {
    for (const row of this.#open.values()) {
      if (row.count > row.countWritten) this.#waiting.add(row);
    }
    return this.#write();
  }

  /** Writes what it can, once, and does nothing by itself afterwards. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearInterval(this.#pruneTimer);
    clearTimeout(this.#flushTimer);
    this.#closeWindows(Infinity);
    await this.#write();
    if (this.#waiting.size === 0) return;
    this.#metrics.dropped('stopped', this.#waiting.size);
    this.#deps.log.warn({ rows: this.#waiting.size }, 'device events lost at stop');
  }

  /**
   * Deletes what is too old, and what is too much where enough was added: there may be a tenth above
   * a bound before anybody looks, since looking costs as much as there are rows.
   * @returns how many rows. @throws {StoreUnavailableError}
   */
  async prune(): Promise<number> {
    const { pool, bounds } = this.#deps;
    const isFull = this.#writtenByDevice.size >= COUNTED_DEVICES_MAX;
    const isDue = ([deviceId, written]: [number | null, number]): boolean => {
      const max = deviceId === null ? bounds.unknownRowsMax : bounds.rowsPerDeviceMax;
      return isFull || written >= max / 10;
    };
    const deviceIds = [...this.#writtenByDevice].filter(isDue).map(([deviceId]) => deviceId);
    const pruned = await pruneDeviceEvents(pool, bounds, deviceIds);
    for (const deviceId of deviceIds) this.#writtenByDevice.delete(deviceId);
    return pruned;
  }

  #schedule(delayMs: number): void {
    if (this.#flushTimer !== undefined || this.#isStopped) return;
    this.#flushTimer = setTimeout(() => void this.#onTimer(), delayMs);
    this.#flushTimer.unref();
  }

  async #onTimer(): Promise<void> {
    const isWritten = await this.#write();
    this.#flushTimer = undefined;
    // Open rows need the timer too: somebody has to close them.
    if (this.#rows > 0) this.#schedule(isWritten ? FLUSH_MS : RETRY_MS * (1 + Math.random()));
  }

  /** One writing at a time; who comes meanwhile waits for it and writes the rest. */
  async #write(): Promise<boolean> {
    while (this.#writing !== null) await this.#writing;
    this.#writing = this.#writeBatches();
    const isWritten = await this.#writing;
    this.#writing = null;
    return isWritten;
  }

  async #writeBatches(): Promise<boolean> {
    this.#closeWindows(this.#deps.now());
    while (this.#waiting.size > 0) {
      const batch = firstOf(this.#waiting, BATCH_ROWS_MAX);
      const counts = batch.map(({ count }) => count);
      if (!(await this.#insert(batch))) return false;
      for (const [at, row] of batch.entries()) this.#noteWritten(row, counts[at] ?? row.count);
    }
    return true;
  }

  /** @returns false when the database is away. */
  async #insert(batch: readonly DeviceEventRow[]): Promise<boolean> {
    const observe = this.#metrics.startTimer();
    try {
      await this.#deps.pool.query(insertRows(batch));
      observe();
      if (this.#isAway) this.#deps.log.info('device events are written again');
      this.#isAway = false;
    } catch (error) {
      const reason = reasonOf(error);
      if (isUnavailable(error)) {
        if (!this.#isAway) this.#deps.log.warn({ reason }, 'device events wait for the database');
        this.#isAway = true;
        return false;
      }
      // What SQL refuses it would refuse for ever, and everything behind would wait for it.
      this.#deps.log.error({ reason, rows: batch.length }, 'device events refused by the database');
      this.#metrics.dropped('refused', batch.length);
    }
    return true;
  }

  #noteWritten(row: DeviceEventRow, count: number): void {
    if (row.countWritten === 0) {
      const written = this.#writtenByDevice.get(row.deviceId) ?? 0;
      this.#writtenByDevice.set(row.deviceId, written + 1);
    }
    row.countWritten = count;
    // One that was closed while it was under way, with more in it, is written once more.
    if (row.isOpen || row.count === count) this.#waiting.delete(row);
    this.#forgetWhenDone(row);
  }

  #closeWindows(endedAt: number): void {
    for (const [key, row] of this.#open) {
      if (row.openUntil > endedAt) return;
      this.#closeWindow(key, row);
    }
  }

  #closeWindow(key: string, row: DeviceEventRow): void {
    this.#open.delete(key);
    row.isOpen = false;
    if (row.count > row.countWritten) this.#waiting.add(row);
    this.#forgetWhenDone(row);
  }

  #forgetWhenDone(row: DeviceEventRow): void {
    if (!row.isOpen && !this.#waiting.has(row)) this.#rows -= 1;
  }
}

/** Unproved key ids are left out: who guesses names another one each time. */
function equalityOf({ kind, code, deviceId, organizationId, keyId, address }: DeviceEvent): string {
  const of = deviceId ?? (organizationId === null ? '' : keyId);
  return `${kind} ${code} ${plainAddress(address)} ${of}`;
}

function firstOf<T>(set: ReadonlySet<T>, max: number): T[] {
  const first: T[] = [];
  for (const item of set) if (first.push(item) === max) break;
  return first;
}

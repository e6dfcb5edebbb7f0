import { setTimeout as delay } from 'node:timers/promises';
import { AppError, reasonOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { CadenceRow, NoDataStore, StoredActivity } from './no-data-port.ts';
import type { Outage } from './outages.ts';

/** What {@link NoDataKeeper} needs. */
export interface NoDataKeeperDeps {
  readonly store: NoDataStore;
  /** What is stored of these devices; those that do not exist are missing in `stored`. */
  readonly onLoaded: (asked: readonly number[], stored: readonly StoredActivity[]) => void;
  /** What was learned and is worth writing; `all` of it at the end. Asked once for each writing. */
  readonly unwritten: (isAll: boolean) => CadenceRow[];
  readonly onWritten: (rows: readonly CadenceRow[]) => void;
  readonly uptime: () => { readonly outages: readonly Outage[]; readonly upMicros: number };
  readonly onWriteFailed: () => void;
  readonly log: Logger;
}

const BATCH_ROWS_MAX = 1000;
const WRITE_MS = 60_000;
const RETRY_MS = 1000;

/**
 * Loads what is stored of watched devices, in batches, and writes what was learned of them each minute and
 * at the end. While the database is away both are repeated; nothing waits for them.
 */
export class NoDataKeeper {
  readonly #deps: NoDataKeeperDeps;
  readonly #wanted = new Set<number>();
  readonly #stopping = new AbortController();
  #loading: Promise<void> | null = null;
  #writing: Promise<void> | null = null;
  #timer: NodeJS.Timeout | undefined;
  #isFailing = false;

  constructor(deps: NoDataKeeperDeps) {
    this.#deps = deps;
  }

  /** Devices that are to be loaded. */
  get wantedDevices(): number {
    return this.#wanted.size;
  }

  start(): void {
    this.#timer = setInterval(() => void this.write(), WRITE_MS);
    this.#timer.unref();
    this.#load();
  }

  /** Writes all that is known, as far as it goes. Never rejects. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#stopping.abort();
    await this.#loading;
    await this.#writing;
    await this.#write(true);
  }

  /** Has a device loaded soon. Before {@link start} it waits. */
  want(deviceId: number): void {
    this.#wanted.add(deviceId);
    if (this.#timer !== undefined) this.#load();
  }

  /** Takes {@link want} back. */
  forget(deviceId: number): void {
    this.#wanted.delete(deviceId);
  }

  /** Writes what is worth it. Calls at the same time share one attempt. Never rejects. */
  write(): Promise<void> {
    this.#writing ??= this.#write(false).finally(() => {
      this.#writing = null;
    });
    return this.#writing;
  }

  #load(): void {
    if (this.#loading !== null || this.#stopping.signal.aborted) return;
    this.#loading = this.#loadWanted().finally(() => {
      this.#loading = null;
      if (this.#wanted.size > 0) this.#load();
    });
  }

  async #loadWanted(): Promise<void> {
    const { signal } = this.#stopping;
    // Whoever watches many devices does so in one go.
    await Promise.resolve();
    while (this.#wanted.size > 0 && !signal.aborted) {
      const asked = [...this.#wanted].slice(0, BATCH_ROWS_MAX);
      for (const deviceId of asked) this.#wanted.delete(deviceId);
      try {
        const stored = await this.#deps.store.load(asked);
        this.#deps.onLoaded(asked, stored);
        this.#note(true);
      } catch (error) {
        for (const deviceId of asked) this.#wanted.add(deviceId);
        this.#note(false, error);
        await delay(RETRY_MS, undefined, { signal, ref: false }).catch(() => undefined);
      }
    }
  }

  async #write(isAll: boolean): Promise<void> {
    const { store, unwritten, onWritten, uptime } = this.#deps;
    try {
      const { outages, upMicros } = uptime();
      await store.writeUptime(outages, upMicros);
      const rows = unwritten(isAll);
      for (let start = 0; start < rows.length; start += BATCH_ROWS_MAX) {
        const batch = rows.slice(start, start + BATCH_ROWS_MAX);
        await store.writeCadences(batch);
        onWritten(batch);
      }
      this.#note(true);
    } catch (error) {
      this.#deps.onWriteFailed();
      this.#note(false, error);
    }
  }

  #note(isWorking: boolean, error?: unknown): void {
    if (isWorking === !this.#isFailing) return;
    this.#isFailing = !isWorking;
    const { log } = this.#deps;
    if (isWorking) log.info('cadences of devices are kept again');
    else if (error instanceof AppError)
      log.warn({ reason: reasonOf(error) }, 'cadences of devices not kept, repeating');
    else log.error({ err: error }, 'cadences of devices not kept, repeating');
  }
}

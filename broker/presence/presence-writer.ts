import { AppError, reasonOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { PresenceMetrics } from './presence-metrics.ts';
import type { PresencePort, PresenceRow } from './presence-port.ts';
import type { DevicePresence } from './presence-state.ts';

/** A device as the writer sees it. The writer alone writes `isWriting` and `isForgotten`. */
export interface WritableDevice {
  readonly deviceId: number;
  readonly organizationId: number;
  readonly presence: DevicePresence;
  /** A statement with a row of it is under way. */
  isWriting: boolean;
  /** It was deleted; nothing more is written of it. */
  isForgotten: boolean;
  /** To be called once what the device said until now is stored. */
  waiting: (() => void)[];
}

/** What {@link PresenceWriter} needs. */
export interface PresenceWriterDeps<Device> {
  readonly store: Pick<PresencePort, 'upsertMany'>;
  readonly log: Logger;
  readonly metrics: PresenceMetrics;
  /** A row is stored, or never will be. Nothing of the device is under way; it may be queued anew. */
  readonly onWritten: (device: Device, written: DevicePresence) => void;
  /** The device no longer exists. */
  readonly onGone: (device: Device) => void;
}

/** Rows of one statement. */
const BATCH_ROWS_MAX = 1000;
/** How long a row waits for others. */
const LINGER_MS = 100;
/** The same while a device waits for its acknowledgement; it may want to sleep. */
const URGENT_LINGER_MS = 20;
const RETRY_MS_MIN = 250;
const RETRY_MS_MAX = 5000;

interface Taken<Device> {
  readonly device: Device;
  readonly row: PresenceRow;
  readonly waiting: readonly (() => void)[];
}

/**
 * Writes presence in the background, one statement at a time, the device first that waits longest. Of
 * one device only what holds when its turn comes is written, so the queue is bounded by the number of
 * devices. What cannot be written while the database is away is written when it is back.
 */
export class PresenceWriter<Device extends WritableDevice> {
  readonly #deps: PresenceWriterDeps<Device>;
  #queue = new Set<Device>();
  #timer: NodeJS.Timeout | undefined;
  #timerAtMs = Infinity;
  /** Ends when no statement is under way; never rejects. */
  #running: Promise<void> = Promise.resolve();
  #next: Promise<void> | null = null;
  #failures = 0;
  #isStopped = false;

  constructor(deps: PresenceWriterDeps<Device>) {
    this.#deps = deps;
  }

  /** Devices that wait. */
  get queuedRows(): number {
    return this.#queue.size;
  }

  isQueued(device: Device): boolean {
    return this.#queue.has(device);
  }

  /** Queues what is to be stored of a device. */
  put(device: Device): void {
    this.#queue.add(device);
    this.#schedule(device.waiting.length > 0 ? URGENT_LINGER_MS : LINGER_MS);
  }

  /** Leaves a deleted device alone from now on; its callbacks are not called. */
  forget(device: Device): void {
    device.isForgotten = true;
    this.#queue.delete(device);
    device.waiting = [];
  }

  /**
   * Resolves when everything is stored that was queued when this was called. Calls at the same time
   * share one attempt. @throws {AppError} when the database is away; what was queued stays so.
   */
  flush(): Promise<void> {
    this.#next ??= this.#running.then(() => {
      this.#next = null;
      const round = this.#writeQueued();
      this.#running = round.catch(() => undefined);
      return round;
    });
    return this.#next;
  }

  /** Writes what is queued, as far as it goes, and nothing afterwards by itself. Never rejects. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    await this.flush().catch((err: unknown) => {
      const rows = this.#queue.size;
      this.#deps.log.warn({ reason: reasonOf(err), rows }, 'presence not written at the end');
    });
  }

  #schedule(lingerMs: number): void {
    const delayMs = Math.max(lingerMs, this.#retryMs());
    const atMs = performance.now() + delayMs;
    if (this.#isStopped || this.#next !== null || this.#timerAtMs <= atMs) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = atMs;
    this.#timer = setTimeout(() => {
      this.#timerAtMs = Infinity;
      this.flush().catch(() => undefined);
    }, delayMs);
    this.#timer.unref();
  }

  #retryMs(): number {
    if (this.#failures === 0) return 0;
    const longest = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** (this.#failures - 1));
    return longest * (0.75 + Math.random() * 0.25);
  }

  /** What is queued meanwhile waits for the next round, or a busy fleet would keep readers waiting. */
  async #writeQueued(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timerAtMs = Infinity;
    try {
      for (let left = this.#queue.size; left > 0; left -= BATCH_ROWS_MAX) {
        await this.#write(this.#take(Math.min(left, BATCH_ROWS_MAX)));
      }
    } finally {
      if (this.#queue.size > 0) this.#schedule(URGENT_LINGER_MS);
    }
  }

  #take(count: number): Taken<Device>[] {
    const taken: Taken<Device>[] = [];
    for (const device of this.#queue) {
      if (taken.length === count) break;
      this.#queue.delete(device);
      const { deviceId, organizationId, presence, waiting } = device;
      taken.push({ device, row: { deviceId, organizationId, presence }, waiting });
      device.waiting = [];
      device.isWriting = true;
    }
    return taken;
  }

  async #write(taken: readonly Taken<Device>[]): Promise<void> {
    if (taken.length === 0) return;
    let gone: ReadonlySet<number>;
    try {
      gone = new Set(await this.#deps.store.upsertMany(taken.map(({ row }) => row)));
    } catch (error) {
      if (!(error instanceof AppError && error.retryable)) return this.#narrow(taken, error);
      this.#keep(taken, error);
      throw error;
    }
    if (this.#failures > 0) this.#deps.log.info('presence is written again');
    this.#failures = 0;
    for (const { device, row, waiting } of taken) {
      device.isWriting = false;
      if (device.isForgotten) continue;
      if (gone.has(row.deviceId)) {
        this.#deps.onGone(device);
        continue;
      }
      for (const stored of waiting) stored();
      this.#deps.onWritten(device, row.presence);
    }
  }

  /** The fault is in a row: the others are written without it. */
  async #narrow(taken: readonly Taken<Device>[], error: unknown): Promise<void> {
    const [only] = taken;
    if (taken.length > 1 || only === undefined) {
      const middle = taken.length >> 1;
      try {
        await this.#write(taken.slice(0, middle));
      } catch (away) {
        this.#requeue(taken.slice(middle));
        throw away;
      }
      return this.#write(taken.slice(middle));
    }
    const { device, row } = only;
    this.#deps.metrics.rowRejected();
    this.#deps.log.error({ err: error, deviceId: row.deviceId }, 'presence of a device refused');
    device.isWriting = false;
    if (!device.isForgotten) this.#deps.onWritten(device, row.presence);
  }

  #keep(taken: readonly Taken<Device>[], error: unknown): void {
    this.#requeue(taken);
    this.#deps.metrics.flushFailed();
    this.#failures += 1;
    if (this.#failures > 1) return;
    this.#deps.log.warn({ reason: reasonOf(error) }, 'presence cannot be written, repeating');
  }

  /** Back to the front: they have waited longest. */
  #requeue(taken: readonly Taken<Device>[]): void {
    const devices: Device[] = [];
    for (const { device, row, waiting } of taken) {
      device.isWriting = false;
      if (device.isForgotten) continue;
      const { state, connectionNumber } = device.presence;
      // The connection that waits for an acknowledgement may have ended meanwhile.
      if (state === 'online' && connectionNumber === row.presence.connectionNumber) {
        device.waiting = [...waiting, ...device.waiting];
      }
      devices.push(device);
    }
    this.#queue = new Set([...devices, ...this.#queue]);
  }
}

import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '../log.ts';
import { reasonOf } from '../errors.ts';
import { makeUuidV7 } from '../drizzle/uuid-v7.ts';
import { Batch, type LatestColumns } from './batch.ts';
import type { DeviceLane } from './device-lane.ts';
import type { IngestMetrics } from './metrics.ts';
import type { Stored } from './reading-store.ts';
import { classifyStoreFault } from './store-fault.ts';

/** Bounds of the writer. */
export interface WriterLimits {
  /** Rows that one batch holds; the message that reaches it is the last. */
  readonly batchRowsMax: number;
  /** Longest wait for more messages while the database is kept busy. */
  readonly lingerMs: number;
  /** Beyond either, {@link BatchWriter.hasRoom} is false. */
  readonly queueRowsMax: number;
  readonly queueBytesMax: number;
  /** The part of the queue's rows and bytes that one device may fill: above 0, 1 for all of it. */
  readonly deviceShare?: number;
}

/** An eighth: seven devices at their bound still leave room for the others. */
const DEVICE_SHARE = 0.125;

/** Waits between attempts while the database is away: doubling, with jitter of a half. */
const RETRY_MS_MIN = 50;
const RETRY_MS_MAX = 2000;

/** Where batches go; see `ReadingStore`, which is the only one in the program. */
export interface BatchStore {
  insert(batch: Batch, latest: LatestColumns): Promise<Stored>;
  insertNew(batch: Batch, first: number, end: number): Promise<Stored>;
  insertQuarantine(batch: Batch, index: number): Promise<Stored>;
  forgetPartitions(): void;
  close(): Promise<void>;
}

/** Batches below this size are not worth a wait. */
const LINGER_MESSAGES_MIN = 64;

/** A batch that no longer grows, with the newest readings it leaves behind. */
interface Sealed {
  readonly batch: Batch;
  readonly latest: LatestColumns;
}

/**
 * Commits messages in batches, one batch at a time, in order of arrival, and acknowledges each message
 * after its COMMIT.
 *
 * Idle: a message is committed in the same turn of the event loop. Busy: what comes in during a COMMIT
 * is the next batch. Database away: the batch is tried again until it is stored; nothing is given up,
 * nothing is acknowledged, and {@link hasRoom} tells when to stop taking more. At least once: when the
 * answer to a COMMIT was lost, the batch is written again, and the key of `reading` drops the copy.
 */
export class BatchWriter {
  readonly #store: BatchStore;
  readonly #limits: WriterLimits;
  readonly #deviceRowsMax: number;
  readonly #deviceBytesMax: number;
  readonly #metrics: IngestMetrics;
  readonly #log: Logger;
  readonly #roomWaiters = new Set<() => void>();
  readonly #drainWaiters = new Set<() => void>();
  #open = new Batch();
  readonly #sealed: Sealed[] = [];
  #sealedRows = 0;
  #sealedBytes = 0;
  #isRunning = false;
  #isStopped = false;
  #isAway = false;

  constructor(store: BatchStore, limits: WriterLimits, metrics: IngestMetrics, log: Logger) {
    this.#store = store;
    this.#limits = limits;
    const { deviceShare = DEVICE_SHARE } = limits;
    this.#deviceRowsMax = Math.ceil(limits.queueRowsMax * deviceShare);
    this.#deviceBytesMax = Math.ceil(limits.queueBytesMax * deviceShare);
    this.#metrics = metrics;
    this.#log = log;
  }

  /** The batch to add a message to; {@link added} must follow in the same turn. */
  get open(): Batch {
    return this.#open;
  }

  /** Rows that wait for COMMIT. */
  get queuedRows(): number {
    return this.#sealedRows + this.#open.rowCount;
  }

  /** Payload bytes that wait for COMMIT. */
  get queuedBytes(): number {
    return this.#sealedBytes + this.#open.payloadBytes;
  }

  /** Messages that wait for COMMIT. */
  get queuedMessages(): number {
    return this.#sealed.reduce(
      (sum, { batch }) => sum + batch.messages.length,
      this.#open.messages.length,
    );
  }

  /** True while the last attempt to commit failed for a reason that passes. */
  get isAway(): boolean {
    return this.#isAway;
  }

  /** False while the queue is at its bound: add nothing then, and ask {@link whenRoom}. */
  hasRoom(): boolean {
    return (
      this.queuedRows < this.#limits.queueRowsMax && this.queuedBytes < this.#limits.queueBytesMax
    );
  }

  /** As {@link hasRoom}, for one device: false also while its own part of the queue is full. */
  hasRoomFor(device: DeviceLane): boolean {
    return (
      device.queuedRows < this.#deviceRowsMax &&
      device.queuedBytes < this.#deviceBytesMax &&
      this.hasRoom()
    );
  }

  /** Calls `wake` once, after a COMMIT has made room. */
  whenRoom(wake: () => void): void {
    this.#roomWaiters.add(wake);
  }

  /** Tells that a message was added to {@link open}. */
  added(): void {
    if (this.#open.rowCount >= this.#limits.batchRowsMax) this.#seal();
    if (this.#isRunning) return;
    this.#isRunning = true;
    setImmediate(() => void this.#run());
  }

  /** Resolves when everything added so far is stored and acknowledged. Rejects never. */
  drain(): Promise<void> {
    if (!this.#isRunning) return Promise.resolve();
    return new Promise((resolve) => this.#drainWaiters.add(resolve));
  }

  /** Gives up: what is not stored now stays unacknowledged. Ends the store's connection. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#store.close();
  }

  #seal(): void {
    const batch = this.#open;
    this.#open = new Batch();
    this.#sealed.push({ batch, latest: batch.takeLatest() });
    this.#sealedRows += batch.rowCount;
    this.#sealedBytes += batch.payloadBytes;
  }

  async #run(): Promise<void> {
    let committedMessages = 0;
    while (!this.#isStopped) {
      if (this.#sealed.length === 0) {
        if (this.#open.messages.length === 0) break;
        await this.#linger(committedMessages);
        if (this.#sealed.length === 0) this.#seal();
      }
      const sealed = this.#sealed[0];
      if (sealed === undefined) break;
      await this.#storeNext(sealed);
      committedMessages = sealed.batch.messages.length;
    }
    this.#isRunning = false;
    for (const resolve of this.#drainWaiters) resolve();
    this.#drainWaiters.clear();
  }

  /** Waits for more only when it pays: the last batch was large and this one is not yet. */
  async #linger(lastMessages: number): Promise<void> {
    const { lingerMs } = this.#limits;
    if (lingerMs === 0 || lastMessages < LINGER_MESSAGES_MIN) return;
    if (this.#open.messages.length >= lastMessages / 2) return;
    await delay(lingerMs);
  }

  async #storeNext(sealed: Sealed): Promise<void> {
    const { batch } = sealed;
    const startedAt = performance.now();
    const stored = await this.#storeUntilDone(sealed);
    if (stored === null) return;
    this.#sealed.shift();
    this.#sealedRows -= batch.rowCount;
    this.#sealedBytes -= batch.payloadBytes;
    this.#metrics.batchCommitted(batch, stored, (performance.now() - startedAt) / 1000);
    batch.settle();
    for (const { publication, canonical } of batch.messages) publication.acknowledge(canonical);
    if (this.#roomWaiters.size > 0 && this.hasRoom()) this.#wakeWaiters();
  }

  #wakeWaiters(): void {
    const waiters = [...this.#roomWaiters];
    this.#roomWaiters.clear();
    for (const wake of waiters) wake();
  }

  /** Null when the writer was stopped before the batch was stored. */
  async #storeUntilDone(sealed: Sealed): Promise<Stored | null> {
    for (let attempt = 0; !this.#isStopped; attempt += 1) {
      try {
        const stored = await this.#storeOnce(sealed);
        this.#setAway(null);
        return stored;
      } catch (cause) {
        if (this.#isStopped) break;
        this.#setAway(cause);
        this.#metrics.commitFailures += 1;
        const backoffMs = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** attempt);
        await delay(backoffMs * (0.5 + Math.random() / 2));
      }
    }
    return null;
  }

  async #storeOnce({ batch, latest }: Sealed): Promise<Stored> {
    try {
      return await this.#store.insert(batch, latest);
    } catch (cause) {
      if (classifyStoreFault(cause) === 'unavailable') throw cause;
      if (classifyStoreFault(cause) === 'partition') this.#store.forgetPartitions();
      return this.#storeNew(batch, 0, batch.messages.length);
    }
  }

  /** Row by row what is new; halves down to the message whose rows the database refuses. */
  async #storeNew(batch: Batch, first: number, end: number): Promise<Stored> {
    try {
      return await this.#store.insertNew(batch, first, end);
    } catch (cause) {
      const fault = classifyStoreFault(cause);
      if (fault !== 'refused') {
        if (fault === 'partition') this.#store.forgetPartitions();
        throw cause;
      }
      if (end - first === 1) return this.#putAside(batch, first, cause);
    }
    const middle = (first + end) >>> 1;
    const left = await this.#storeNew(batch, first, middle);
    const right = await this.#storeNew(batch, middle, end);
    return {
      insertedRows: left.insertedRows + right.insertedRows,
      duplicateRows: left.duplicateRows + right.duplicateRows,
      quarantinedMessages: left.quarantinedMessages + right.quarantinedMessages,
    };
  }

  async #putAside(batch: Batch, index: number, cause: unknown): Promise<Stored> {
    const message = batch.messages[index];
    if (message === undefined) throw cause;
    message.quarantine ??= {
      id: makeUuidV7(Date.now()),
      code: 'not_stored',
      detail: reasonOf(cause).slice(0, 100),
    };
    message.canonical = null;
    this.#log.error({ err: reasonOf(cause) }, 'the database refused a message');
    return this.#store.insertQuarantine(batch, index);
  }

  #setAway(cause: unknown): void {
    const isAway = cause !== null;
    if (isAway === this.#isAway) return;
    this.#isAway = isAway;
    if (isAway)
      this.#log.warn({ err: reasonOf(cause) }, 'database away, acknowledgements are held');
    else this.#log.info('database back, acknowledgements go on');
  }
}

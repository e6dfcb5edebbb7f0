import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '../log.ts';
import { reasonOf } from '../errors.ts';
import { Batch, type LatestColumns, type OnNumber } from './batch.ts';
import { commitBatch, type BatchStore } from './batch-commit.ts';
import type { BatchSpool, WriterLimits } from './writer-limits.ts';
import type { DeviceLane } from './device-lane.ts';
import type { IngestMetrics } from './metrics.ts';
import type { Stored } from './reading-store.ts';
import { SettledOrder } from './settled-order.ts';

/** What the writer is made of. */
export interface WriterParts {
  readonly store: BatchStore;
  readonly limits: WriterLimits;
  readonly metrics: IngestMetrics;
  readonly log: Logger;
  /** Null or left out: what the database does not take waits in the queue. */
  readonly spool?: BatchSpool | null;
  /** Told of numbers that are committed. */
  readonly onNumber?: OnNumber | undefined;
}

/** An eighth: seven devices at their bound still leave room for the others. */
const DEVICE_SHARE = 0.125;
/** Waits between attempts while the database is away: doubling, with jitter of a half. */
const RETRY_MS_MIN = 50;
const RETRY_MS_MAX = 2000;
/** Batches below this size are not worth a wait. */
const LINGER_MESSAGES_MIN = 64;
const SPOOL_AFTER_MS = 1000;
/** An attempt under way may yet succeed: its batch waits so many times longer. */
const UNDER_WAY_FACTOR = 3;
/** So does what waits behind a database that answers, late as it may be: spooling is work for it too. */
const ANSWERING_FACTOR = 5;

/** A batch that no longer grows, with the newest readings it leaves behind. */
interface Sealed {
  readonly batch: Batch;
  readonly latest: LatestColumns;
  /** Its place among all batches. */
  readonly number: number;
  /** When its first message came, in ms of the monotonic clock. */
  readonly openedAtMs: number;
  /** Whether the spool has it, or is writing it: the spool's answer counts then. */
  isSpooled: boolean;
  isSettled: boolean;
}

/**
 * Commits messages in batches, one batch at a time, in order of arrival, and acknowledges each message
 * after its COMMIT.
 *
 * Idle: a message is committed in the same turn of the event loop. Busy: what comes in during a COMMIT
 * is the next batch. Database away or slow: what has waited for `spoolAfterMs`, or does not fit into the
 * queue, goes to the spool and is acknowledged once it is synced there. Spool off, full or failing: the
 * batch is tried again until it is stored; nothing is given up, nothing is acknowledged, and
 * {@link hasRoom} tells when to stop taking more. At least once: when the answer to a COMMIT was lost,
 * the batch is written again, and the key of `reading` drops the copy.
 */
export class BatchWriter {
  readonly #store: BatchStore;
  readonly #limits: WriterLimits;
  readonly #deviceRowsMax: number;
  readonly #deviceBytesMax: number;
  readonly #spoolAfterMs: number;
  readonly #metrics: IngestMetrics;
  readonly #log: Logger;
  readonly #spool: BatchSpool | null;
  readonly #onNumber: OnNumber | undefined;
  readonly #roomWaiters = new Set<() => void>();
  readonly #drainWaiters = new Set<() => void>();
  #open = new Batch();
  #openedAtMs = 0;
  /** In the order of their numbers; the one under way is not among them. */
  readonly #sealed: Sealed[] = [];
  #underWay: Sealed | null = null;
  /** When the attempt under way began, in ms of the monotonic clock. */
  #attemptedAtMs = 0;
  #lastNumber = 0;
  readonly #order = new SettledOrder();
  #sealedRows = 0;
  #sealedBytes = 0;
  #sealedMessages = 0;
  #spoolingBatches = 0;
  #isRunning = false;
  #isStopped = false;
  #isAway = false;
  #isSpooling = false;
  #watch: NodeJS.Timeout | null = null;

  constructor({ store, limits, metrics, log, spool = null, onNumber }: WriterParts) {
    this.#onNumber = onNumber;
    this.#store = store;
    this.#limits = limits;
    const { deviceShare = DEVICE_SHARE } = limits;
    this.#deviceRowsMax = Math.ceil(limits.queueRowsMax * deviceShare);
    this.#deviceBytesMax = Math.ceil(limits.queueBytesMax * deviceShare);
    this.#spoolAfterMs = limits.spoolAfterMs ?? SPOOL_AFTER_MS;
    this.#metrics = metrics;
    this.#log = log;
    this.#spool = spool;
  }

  /** The batch to add a message to; {@link added} must follow in the same turn. */
  get open(): Batch {
    return this.#open;
  }

  /** Rows that wait to be stored. */
  get queuedRows(): number {
    return this.#sealedRows + this.#open.rowCount;
  }

  /** Payload bytes that wait to be stored. */
  get queuedBytes(): number {
    return this.#sealedBytes + this.#open.payloadBytes;
  }

  /** Messages that wait to be stored. */
  get queuedMessages(): number {
    return this.#sealedMessages + this.#open.messages.length + this.#order.waitingCopies;
  }

  /** How full the queue is, from 0 to 1 and a little over. */
  get fullShare(): number {
    const { queueRowsMax, queueBytesMax } = this.#limits;
    return Math.max(this.queuedRows / queueRowsMax, this.queuedBytes / queueBytesMax);
  }

  /** True from when a commit fails for a reason that passes until the database is known to be back. */
  get isAway(): boolean {
    return this.#isAway;
  }

  /** True from when something had to be spooled until the database is known to take something. */
  get isSpooling(): boolean {
    return this.#isAway || this.#isSpooling;
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

  /** Calls `wake` once, after something was stored and has made room. */
  whenRoom(wake: () => void): void {
    this.#roomWaiters.add(wake);
    this.#spoolAll();
  }

  /** Tells that a message was added to {@link open}. */
  added(): void {
    if (this.#open.messages.length === 1) this.#openedAtMs = performance.now();
    if (this.#open.rowCount >= this.#limits.batchRowsMax) this.#seal();
    this.#start();
  }

  /** Tells that messages were spooled which could not be looked up. */
  noteSpooled(): void {
    this.#isSpooling = true;
  }

  /** Tells that the database took something that came another way: batches are given to it again. */
  noteBack(): void {
    this.#setAway(null);
  }

  /** Resolves when everything added so far is stored and acknowledged. Rejects never. */
  drain(): Promise<void> {
    if (this.#isIdle()) return Promise.resolve();
    return new Promise((resolve) => this.#drainWaiters.add(resolve));
  }

  /** Gives up: what is not stored now stays unacknowledged. Ends the store's connection. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#watch !== null) clearInterval(this.#watch);
    await this.#store.close();
  }

  #start(): void {
    if (this.#isRunning) return;
    this.#isRunning = true;
    if (this.#spool !== null && this.#watch === null) {
      this.#watch = setInterval(() => this.#spoolLate(), Math.ceil(this.#spoolAfterMs / 4));
    }
    setImmediate(() => void this.#run());
  }

  #isIdle(): boolean {
    return !this.#isRunning && this.#spoolingBatches === 0;
  }

  #noteIdle(): void {
    if (!this.#isIdle()) return;
    if (this.#watch !== null) clearInterval(this.#watch);
    this.#watch = null;
    for (const resolve of this.#drainWaiters) resolve();
    this.#drainWaiters.clear();
  }

  #seal(): void {
    const batch = this.#open;
    this.#open = new Batch();
    const latest = batch.takeLatest();
    this.#lastNumber += 1;
    const [number, openedAtMs] = [this.#lastNumber, this.#openedAtMs];
    this.#order.begin(number);
    this.#sealed.push({ batch, latest, number, openedAtMs, isSpooled: false, isSettled: false });
    this.#sealedRows += batch.rowCount;
    this.#sealedBytes += batch.payloadBytes;
    this.#sealedMessages += batch.messages.length;
  }

  async #run(): Promise<void> {
    let committedMessages = 0;
    while (!this.#isStopped) {
      if (this.#sealed.length === 0) {
        if (this.#open.messages.length === 0) break;
        await this.#linger(committedMessages);
        if (this.#sealed.length === 0 && this.#open.messages.length > 0) this.#seal();
      }
      // One in a turn of the event loop: a queue may be long when the database goes away.
      if (this.#isAway && this.#spoolNext()) {
        await new Promise(setImmediate);
        continue;
      }
      const sealed = this.#sealed.shift();
      if (sealed === undefined) continue;
      this.#underWay = sealed;
      await this.#storeUntilDone(sealed);
      this.#underWay = null;
      committedMessages = sealed.batch.messages.length;
    }
    this.#isRunning = false;
    this.#noteIdle();
  }

  /** Waits for more only when it pays: the last batch was large and this one is not yet. */
  async #linger(lastMessages: number): Promise<void> {
    const { lingerMs } = this.#limits;
    if (lingerMs === 0 || lastMessages < LINGER_MESSAGES_MIN) return;
    if (this.#open.messages.length >= lastMessages / 2) return;
    await delay(lingerMs);
  }

  async #storeUntilDone(sealed: Sealed): Promise<void> {
    const startedAt = performance.now();
    for (let attempt = 0; !this.#isStopped && !sealed.isSpooled; attempt += 1) {
      this.#attemptedAtMs = performance.now();
      try {
        const { batch, latest } = sealed;
        const stored = await commitBatch(this.#store, batch, latest, this.#log);
        this.#setAway(null);
        if (!sealed.isSpooled) this.#settleCommitted(sealed, stored, performance.now() - startedAt);
        return;
      } catch (cause) {
        if (this.#isStopped) return;
        this.#metrics.commitFailures += 1;
        // The drain has taken over, and knows by now how it stands with the database.
        if (sealed.isSettled) return;
        this.#setAway(cause);
        if (this.#isLate(sealed, 1) && this.#spoolOne(sealed)) return;
        const backoffMs = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** attempt);
        await delay(backoffMs * (0.5 + Math.random() / 2));
      }
    }
  }

  #settleCommitted(sealed: Sealed, stored: Stored, ms: number): void {
    this.#metrics.batchCommitted(sealed.batch, stored, ms / 1000);
    this.#settle(sealed, this.#onNumber);
  }

  /** @param onNumber told of what is in the database now, and not of what is spooled: that is drained. */
  #settle(sealed: Sealed, onNumber?: OnNumber): void {
    const { batch, number } = sealed;
    sealed.isSettled = true;
    this.#sealedRows -= batch.rowCount;
    this.#sealedBytes -= batch.payloadBytes;
    this.#sealedMessages -= batch.messages.length;
    batch.settle(onNumber);
    for (const message of this.#order.settle(number, batch.messages)) {
      if (message.isDuplicate) this.#metrics.duplicateMessages += 1;
      message.publication.acknowledge(message.canonical, message.quarantine);
    }
    if (this.#roomWaiters.size > 0 && this.hasRoom()) this.#wakeWaiters();
  }

  #wakeWaiters(): void {
    const waiters = [...this.#roomWaiters];
    this.#roomWaiters.clear();
    for (const wake of waiters) wake();
  }

  #isLate({ openedAtMs }: Sealed, factor: number): boolean {
    return performance.now() - openedAtMs >= this.#spoolAfterMs * factor;
  }

  /** To the spool with everything that has waited too long. */
  #spoolLate(): void {
    const nowMs = performance.now();
    const isAsked = this.#underWay !== null;
    const isSilent = this.#isAway || (isAsked && nowMs - this.#attemptedAtMs >= this.#spoolAfterMs);
    const factor = isSilent ? 1 : ANSWERING_FACTOR;
    const isOpenLate = nowMs - this.#openedAtMs >= this.#spoolAfterMs * factor;
    if (this.#open.messages.length > 0 && isOpenLate && this.#spool?.isUsable === true)
      this.#seal();
    const [first] = this.#sealed;
    if (first !== undefined && this.#isLate(first, factor) && this.#spoolNext()) {
      if (this.#sealed.length > 0) setImmediate(() => this.#spoolLate());
    }
    const underWay = this.#underWay;
    if (underWay !== null && nowMs - this.#attemptedAtMs >= this.#spoolAfterMs * UNDER_WAY_FACTOR) {
      this.#spoolOne(underWay);
    }
  }

  /** To the spool with everything that is not under way, where it takes it. */
  #spoolAll(): void {
    if (this.#spool?.isUsable !== true) return;
    if (this.#open.messages.length > 0) this.#seal();
    if (this.#spoolNext() && this.#sealed.length > 0) setImmediate(() => this.#spoolAll());
  }

  #spoolNext(): boolean {
    const sealed = this.#sealed.shift();
    if (sealed === undefined) return false;
    const isTaken = this.#spoolOne(sealed);
    if (!isTaken) this.#sealed.unshift(sealed);
    return isTaken;
  }

  /** @returns false when the spool takes nothing now. */
  #spoolOne(sealed: Sealed): boolean {
    if (sealed.isSpooled) return true;
    if (this.#spool?.isUsable !== true) return false;
    sealed.isSpooled = true;
    this.#isSpooling = true;
    this.#spoolingBatches += 1;
    this.#spool.append(
      sealed.batch.messages,
      () => {
        this.#spoolingBatches -= 1;
        this.#settle(sealed);
        this.#noteIdle();
      },
      () => this.#putBack(sealed),
    );
    return true;
  }

  /** The spool has not taken it: it waits for the database after all, in its old place. */
  #putBack(sealed: Sealed): void {
    this.#spoolingBatches -= 1;
    sealed.isSpooled = false;
    // Still under way: the attempts go on with it.
    if (sealed !== this.#underWay) {
      const behind = this.#sealed.findIndex(({ number }) => number > sealed.number);
      this.#sealed.splice(behind < 0 ? this.#sealed.length : behind, 0, sealed);
    }
    this.#start();
  }

  #setAway(cause: unknown): void {
    const isAway = cause !== null;
    this.#isSpooling = isAway;
    if (isAway === this.#isAway) return;
    this.#isAway = isAway;
    if (isAway) this.#log.warn({ err: reasonOf(cause) }, 'database away');
    else this.#log.info('database back');
  }
}

import { SessionStoreError, reasonOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { Changes, DiskFile } from './disk-file.ts';

/** What of a {@link DiskFile} a writer needs. */
export type WritableFile = Pick<DiskFile, 'get' | 'has' | 'scan' | 'commit'>;

/** What a {@link DiskWriter} is made of. */
export interface DiskWriterParts {
  readonly file: WritableFile;
  readonly log: Logger;
  /** Bytes of keys and values that may wait for the disk; beyond it {@link DiskWriter.isFull}. */
  readonly stagedBytesMax: number;
  /** Called for each attempt to write that failed. */
  readonly onFailure: () => void;
}

/** The changes that one commit carries, with those who wait for it. */
class Batch {
  readonly changes = new Map<string, Buffer | null>();
  bytes = 0;
  #promise: Promise<void> | null = null;
  #resolve: () => void = () => undefined;
  #reject: (cause: Error) => void = () => undefined;

  set(key: string, value: Buffer | null): void {
    this.bytes += sizeOf(key, value) - this.#sizeAt(key);
    this.changes.set(key, value);
  }

  unset(key: string): void {
    this.bytes -= this.#sizeAt(key);
    this.changes.delete(key);
  }

  /** Made only when somebody asks, so that no rejection stays unheard. */
  get committed(): Promise<void> {
    this.#promise ??= new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    return this.#promise;
  }

  settle(cause: Error | null): void {
    if (cause === null) this.#resolve();
    else this.#reject(cause);
  }

  #sizeAt(key: string): number {
    const value = this.changes.get(key);
    return value === undefined ? 0 : sizeOf(key, value);
  }
}

/** Pause before the next attempt after one that failed. */
const RETRY_MS = 1000;

/**
 * Collects changes and commits them together, one commit at a time: while one is under way the next
 * grows. Reads see every change at once. When a commit fails its changes stay, are seen, and are tried
 * again each second; until one succeeds whoever asks for durability is told that there is none.
 */
export class DiskWriter {
  readonly #file: WritableFile;
  readonly #log: Logger;
  readonly #stagedBytesMax: number;
  readonly #onFailure: () => void;
  #staged = new Batch();
  #committing: Batch | null = null;
  /** Null while the disk takes what it is given. */
  #failure: SessionStoreError | null = null;
  #isScheduled = false;
  #isClosed = false;
  #retryTimer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();

  constructor({ file, log, stagedBytesMax, onFailure }: DiskWriterParts) {
    this.#file = file;
    this.#log = log;
    this.#stagedBytesMax = stagedBytesMax;
    this.#onFailure = onFailure;
  }

  /** True when so much waits for the disk that nothing should be added that can be refused. */
  get isFull(): boolean {
    return this.#staged.bytes + (this.#committing?.bytes ?? 0) >= this.#stagedBytesMax;
  }

  get(key: string): Buffer | undefined {
    const pending = this.#pending(key);
    return pending === undefined ? this.#file.get(key) : (pending ?? undefined);
  }

  has(key: string): boolean {
    const pending = this.#pending(key);
    return pending === undefined ? this.#file.has(key) : pending !== null;
  }

  put(key: string, value: Buffer): void {
    this.#staged.set(key, value);
    this.#schedule();
  }

  remove(key: string): void {
    this.#staged.set(key, null);
    this.#schedule();
  }

  /** Removes a key that was put once and never again; when the put still waits, neither reaches the disk. */
  withdraw(key: string): void {
    // A commit that failed may have written a part of what is staged again.
    const isUnwritten = this.#failure === null && this.#staged.changes.get(key) instanceof Buffer;
    if (isUnwritten) this.#staged.unset(key);
    else this.remove(key);
  }

  /** The rows whose keys begin with `prefix`, with what is pending now; in no order. */
  *scan(prefix: string): Generator<{ key: string; value: Buffer }> {
    const pending = this.#pendingBelow(prefix);
    for (const [key, value] of pending) if (value !== null) yield { key, value };
    for (const row of this.#file.scan(prefix)) if (!pending.has(row.key)) yield row;
  }

  /**
   * Resolves when every change made until now is on disk.
   * @throws {SessionStoreError} when it is not; it is still tried again and seen by reads.
   */
  flushed(): Promise<void> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    if (this.#isClosed) return Promise.reject(new SessionStoreError('it is closed'));
    if (this.#staged.changes.size > 0) return this.#staged.committed;
    return this.#committing?.committed ?? Promise.resolve();
  }

  /** Commits what waits, with a last attempt when the disk fails. @throws {SessionStoreError} */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#retryTimer);
    await this.#running;
    if (this.#staged.changes.size > 0) await this.#commit();
    if (this.#failure !== null) throw this.#failure;
  }

  #pending(key: string): Buffer | null | undefined {
    const staged = this.#staged.changes.get(key);
    return staged === undefined ? this.#committing?.changes.get(key) : staged;
  }

  #pendingBelow(prefix: string): Map<string, Buffer | null> {
    const below = new Map<string, Buffer | null>();
    for (const changes of [this.#committing?.changes, this.#staged.changes]) {
      for (const [key, value] of changes ?? []) if (key.startsWith(prefix)) below.set(key, value);
    }
    return below;
  }

  #schedule(): void {
    if (this.#isScheduled || this.#isClosed || this.#failure !== null) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#running = this.#run();
    });
  }

  async #run(): Promise<void> {
    while (this.#staged.changes.size > 0 && !this.#isClosed) {
      await this.#commit();
      if (this.#failure === null) continue;
      this.#retryTimer = setTimeout(() => {
        this.#running = this.#run();
      }, RETRY_MS);
      return;
    }
    this.#isScheduled = false;
  }

  async #commit(): Promise<void> {
    const batch = this.#staged;
    this.#committing = batch;
    this.#staged = new Batch();
    const cause = await this.#file.commit(batch.changes).then(
      () => null,
      (reason: unknown) => new SessionStoreError(reasonOf(reason), reason),
    );
    this.#committing = null;
    if (cause === null) this.#noteSuccess();
    else this.#noteFailure(cause, batch.changes);
    batch.settle(cause);
  }

  #noteSuccess(): void {
    if (this.#failure !== null) this.#log.info('session store writes again');
    this.#failure = null;
  }

  #noteFailure(cause: SessionStoreError, changes: Changes): void {
    this.#onFailure();
    if (this.#failure === null) this.#log.error({ err: cause }, 'session store cannot write');
    this.#failure = cause;
    const newer = this.#staged;
    this.#staged = new Batch();
    for (const [key, value] of changes) this.#staged.set(key, value);
    for (const [key, value] of newer.changes) this.#staged.set(key, value);
    newer.settle(cause);
  }
}

function sizeOf(key: string, value: Buffer | null): number {
  return key.length + (value?.length ?? 0);
}

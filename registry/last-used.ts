import type pg from 'pg';
import { reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';

/** The time of last use of one key is written at most this often. */
const KEY_MS_MIN = 60_000;
const FLUSH_MS = 5000;
/** Keys whose last writing is remembered; beyond it the memory starts over. */
const REMEMBERED_MAX = 100_000;
/** Keys that one statement writes. */
const BATCH_KEYS_MAX = 1000;

/**
 * Writes when keys were last used, in the background: at most once a minute for each key, in
 * batches five seconds apart, one statement at a time. What cannot be written is left out; the next
 * use of the key after a minute writes again.
 */
export class LastUsed {
  readonly #pool: pg.Pool;
  readonly #log: Logger;
  readonly #notedAt = new Map<string, number>();
  readonly #pending = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #flush: Promise<void> = Promise.resolve();
  #isFlushing = false;

  constructor(pool: pg.Pool, log: Logger) {
    this.#pool = pool;
    this.#log = log;
  }

  /** Notes that a key was used now. Costs a look into a Map. */
  note(keyId: string): void {
    const now = performance.now();
    if (now - (this.#notedAt.get(keyId) ?? -Infinity) < KEY_MS_MIN) return;
    if (this.#notedAt.size >= REMEMBERED_MAX) this.#notedAt.clear();
    this.#notedAt.set(keyId, now);
    this.#pending.add(keyId);
    this.#schedule();
  }

  /** Writes what is pending, as far as it goes, and writes no more afterwards by itself. */
  async stop(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#flush;
    await this.#write();
  }

  #schedule(): void {
    if (this.#timer !== undefined || this.#isFlushing) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#flush = this.#write();
    }, FLUSH_MS);
    this.#timer.unref();
  }

  async #write(): Promise<void> {
    if (this.#pending.size === 0) return;
    this.#isFlushing = true;
    const keyIds = [...this.#pending].slice(0, BATCH_KEYS_MAX);
    for (const keyId of keyIds) this.#pending.delete(keyId);
    try {
      // SKIP LOCKED: two programs never wait for each other, nor for somebody who revokes a key.
      await this.#pool.query(
        `UPDATE api_key SET last_used_at = now() WHERE key_id IN (
           SELECT key_id FROM api_key WHERE key_id = ANY($1) FOR NO KEY UPDATE SKIP LOCKED)`,
        [keyIds],
      );
    } catch (error) {
      this.#log.debug({ reason: reasonOf(error), keys: keyIds.length }, 'last use not written');
    }
    this.#isFlushing = false;
    if (this.#pending.size > 0) this.#schedule();
  }
}

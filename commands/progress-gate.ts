import type { Ack } from '../firmware-protocol/ack.ts';

/** Between two steps of the same command that say how far it is. */
const STEP_MS_MIN = 5000;
/** Unless it has come so much further, in percent. */
const STEP_PERCENT_MIN = 10;
const COMMANDS_MAX = 10_000;

/**
 * Holds back progress that is not worth a transaction: a command may say it many times a second. In memory;
 * one that is not remembered passes.
 */
export class ProgressGate {
  readonly #told = new Map<string, { readonly atMs: number; readonly pct: number }>();

  /** Whether an answer is worth to be stored. */
  passes(deviceId: number, { id, st, pct = 0 }: Ack, nowMs: number): boolean {
    const key = `${deviceId}/${id}`;
    const before = this.#told.get(key);
    if (st !== 'run') {
      this.#told.delete(key);
      return true;
    }
    const isNews =
      before === undefined ||
      nowMs - before.atMs >= STEP_MS_MIN ||
      Math.abs(pct - before.pct) >= STEP_PERCENT_MIN;
    return isNews;
  }

  /** Takes note of progress that is stored. */
  stored(deviceId: number, { id, st, pct = 0 }: Ack, nowMs: number): void {
    if (st !== 'run') return;
    const key = `${deviceId}/${id}`;
    this.#told.delete(key);
    this.#told.set(key, { atMs: nowMs, pct });
    const [oldest] = this.#told.keys();
    if (this.#told.size > COMMANDS_MAX && oldest !== undefined) this.#told.delete(oldest);
  }
}

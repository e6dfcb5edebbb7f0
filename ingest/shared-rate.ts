// HOT PATH: `take` once per message
import { RateWait } from './rate-wait.ts';
import { TokenBucket } from './token-bucket.ts';

/** Why a message over a shared rate is not taken: `rate` for that of an address. */
export type SharedRateReason = 'rate' | 'quota';

/** Longest wait for a shared rate, in ms; the socket rests meanwhile. */
const WAIT_MS_MAX = 2000;
/** After this time without a connection every bucket is full again: it may be forgotten. Ms. */
const IDLE_MS_MAX = 10_000;

/**
 * A rate of messages that several devices have in common. While there is enough for all, nobody waits.
 * When there is not, each device stands in line with one message, and goes to the end of the line for
 * its next: so all of them get the same part, and who sends less than that part hardly waits at all.
 */
export class SharedRate {
  readonly reason: SharedRateReason;
  readonly #bucket: TokenBucket;
  readonly #line = new Set<() => void>();
  /** Whether a timer will serve the line. */
  #isTimed = false;
  /** Connections that use the rate. */
  connections = 0;
  /** When the last of them ended, in ms of the monotonic clock. */
  usedAt = 0;

  constructor(perSecond: number, reason: SharedRateReason) {
    this.#bucket = new TokenBucket(perSecond);
    this.reason = reason;
  }

  /** Takes one message's part; false when it is not there, or others wait for theirs. */
  take(nowMs: number): boolean {
    return this.#line.size === 0 && this.#bucket.take(1, nowMs) === 0;
  }

  /** Stands in line. `granted` is called once, later, with one message's part taken. */
  wait(granted: () => void, nowMs: number): void {
    this.#line.add(granted);
    this.#startTimer(nowMs);
  }

  /** Milliseconds until all who stand in line now will have been served. */
  waitMs(nowMs: number): number {
    return this.#bucket.waitFor(this.#line.size, nowMs);
  }

  #startTimer(nowMs: number): void {
    if (this.#isTimed) return;
    this.#isTimed = true;
    setTimeout(() => this.#serve(), Math.ceil(this.#bucket.waitFor(1, nowMs)));
  }

  #serve(): void {
    this.#isTimed = false;
    const nowMs = performance.now();
    // Whom this turn serves stands at the end of the line with its next message, and is met there.
    for (const granted of this.#line) {
      if (this.#bucket.take(1, nowMs) > 0) break;
      this.#line.delete(granted);
      granted();
    }
    if (this.#line.size > 0) this.#startTimer(nowMs);
  }
}

/** The shared rates of one kind by their key: an organization's id, or an address. */
export class SharedRates<Key> {
  readonly #perSecond: number;
  readonly #reason: SharedRateReason;
  readonly #rates = new Map<Key, SharedRate>();

  constructor(perSecond: number, reason: SharedRateReason) {
    this.#perSecond = perSecond;
    this.#reason = reason;
  }

  /** The rate for one more connection, or null when there is no limit. */
  acquire(key: Key): SharedRate | null {
    if (this.#perSecond === 0) return null;
    let rate = this.#rates.get(key);
    if (rate === undefined) {
      rate = new SharedRate(this.#perSecond, this.#reason);
      this.#rates.set(key, rate);
    }
    rate.connections += 1;
    return rate;
  }

  /** Forgets rates that no connection uses. */
  forgetIdle(nowMs: number): void {
    for (const [key, { connections, usedAt }] of this.#rates) {
      if (connections === 0 && nowMs - usedAt > IDLE_MS_MAX) this.#rates.delete(key);
    }
  }
}

/** How a device fares with the rates it shares: it is over one when it has waited for too long, or will. */
export class SharedWait {
  /** The rate that is waited for. */
  rate: SharedRate | null = null;
  readonly #wait = new RateWait();

  /** Notes that a message begins to wait. */
  start(rate: SharedRate, nowMs: number): void {
    this.rate = rate;
    this.#wait.start(nowMs);
  }

  /** Notes that it waits no more. */
  end(nowMs: number): void {
    this.rate = null;
    this.#wait.end(nowMs);
  }

  /** The reason for which messages are dropped, when waiting has not helped or will not. */
  overReason(nowMs: number): SharedRateReason | null {
    const { rate } = this;
    if (rate === null) return null;
    const isOver = this.#wait.lastedMs(nowMs) > WAIT_MS_MAX || rate.waitMs(nowMs) > WAIT_MS_MAX;
    return isOver ? rate.reason : null;
  }
}

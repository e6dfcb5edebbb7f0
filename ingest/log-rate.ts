import { TokenBucket } from './token-bucket.ts';

/** What becomes of a message on `log` that is over a bound. */
export type LogVerdict = 'taken' | 'dropped' | { readonly waitMs: number };

/**
 * How much one device may log: bytes of payload a second, with a burst of five seconds' worth. Logs are the
 * first to go: over the rate, or while the queue for the database is more than half full, messages at
 * QoS 0 are dropped. Above QoS 0 they wait, as over any other rate.
 */
export class LogRate {
  readonly #bucket: TokenBucket;

  /** @param bytesPerSecond 0: no limit. */
  constructor(bytesPerSecond: number) {
    this.#bucket = new TokenBucket(bytesPerSecond);
  }

  /**
   * Asks for one message. What is dropped or has to wait takes nothing.
   * @param queueShare how full the queue for the database is, from 0 to 1.
   * @param nowMs of a monotonic clock.
   */
  take(message: LogMessage, queueShare: number, nowMs: number): LogVerdict {
    const { qos, bytes } = message;
    if (qos === 0 && queueShare > QUEUE_SHARE_MAX) return 'dropped';
    const waitMs = this.#bucket.take(bytes, nowMs);
    if (waitMs === 0) return 'taken';
    return qos === 0 ? 'dropped' : { waitMs };
  }
}

/** What of a publication counts. */
export interface LogMessage {
  readonly qos: 0 | 1 | 2;
  readonly bytes: number;
}

const QUEUE_SHARE_MAX = 0.5;

import type { RefusalCode } from '../firmware-protocol/contract.ts';
import type { Session } from './session.ts';

/** `in/err` is sent once a second at most; `n` says how many errors it stands for. */
const INTERVAL_MS = 1000;
/** A device with more errors in a minute is broken or hostile, and is cut off. */
const ERRORS_PER_MINUTE_MAX = 100;

/** What one connection was told, and not told, on `in/err`. */
export class DeviceErrors {
  readonly #session: Session;
  readonly #topic: string;
  #sentAt = -Infinity;
  #unsent = 0;
  #minuteStartedAt = 0;
  #inMinute = 0;

  /** @param topic canonical `in/err` of the device. */
  constructor(session: Session, topic: string) {
    this.#session = session;
    this.#topic = topic;
  }

  /** Tells of an error, at most once a second, and closes the connection beyond 100 a minute. */
  report(code: RefusalCode, channel: string, detail: string): void {
    const now = performance.now();
    if (now - this.#minuteStartedAt > 60_000) {
      this.#minuteStartedAt = now;
      this.#inMinute = 0;
    }
    // What is dropped for its rate is held back already, and no sign of a broken device.
    if (code !== 'rate' && code !== 'quota') this.#inMinute += 1;
    this.#unsent += 1;
    if (now - this.#sentAt >= INTERVAL_MS) {
      this.#send(code, channel, detail);
      this.#sentAt = now;
      this.#unsent = 0;
    }
    if (this.#inMinute > ERRORS_PER_MINUTE_MAX) this.#session.close('errors');
  }

  #send(code: RefusalCode, channel: string, detail: string): void {
    const hasTime = code === 'clock' || code === 'too_old';
    this.#session.send(this.#topic, {
      code,
      ch: channel,
      msg: detail,
      n: this.#unsent,
      ...(hasTime ? { ts: Date.now() } : {}),
    });
  }
}

import type { RefusalCode } from '../firmware-protocol/contract.ts';
import type { Session } from './session.ts';

/** `in/err` is sent once a second at most; `n` says how many errors it stands for. */
const INTERVAL_MS = 1000;
/** A device with more errors in a minute is broken or hostile, and is cut off. */
const ERRORS_PER_MINUTE_MAX = 100;

/** What is dropped for its rate is held back already; unknown channels are of newer firmware. */
const HARMLESS: ReadonlySet<RefusalCode> = new Set(['rate', 'quota', 'unknown_channel']);

/** What one connection was told, and not told, on `in/err`. */
export class DeviceErrors {
  readonly #session: Pick<Session, 'close'>;
  readonly #now: () => number;
  readonly #send: (message: object) => void;
  #sentAt = -Infinity;
  #unsent = 0;
  #minuteStartedAt = 0;
  #inMinute = 0;

  /**
   * @param now milliseconds since 1970.
   * @param send writes a message to `in/err`.
   */
  constructor(session: Pick<Session, 'close'>, now: () => number, send: (message: object) => void) {
    this.#session = session;
    this.#now = now;
    this.#send = send;
  }

  /** Tells of an error, at most once a second, and closes the connection beyond 100 a minute. */
  report(code: RefusalCode, channel: string, detail: string): void {
    const now = performance.now();
    if (now - this.#minuteStartedAt > 60_000) {
      this.#minuteStartedAt = now;
      this.#inMinute = 0;
    }
    if (!HARMLESS.has(code)) this.#inMinute += 1;
    this.#unsent += 1;
    if (now - this.#sentAt >= INTERVAL_MS) {
      this.#tell(code, channel, detail);
      this.#sentAt = now;
      this.#unsent = 0;
    }
    if (this.#inMinute > ERRORS_PER_MINUTE_MAX) this.#session.close('errors');
  }

  #tell(code: RefusalCode, channel: string, detail: string): void {
    const hasTime = code === 'clock' || code === 'too_old';
    this.#send({
      code,
      ch: channel,
      msg: detail,
      n: this.#unsent,
      ...(hasTime ? { ts: this.#now() } : {}),
    });
  }
}

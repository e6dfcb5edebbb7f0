import type { RefusalCode } from '../firmware-protocol/contract.ts';
import type { BrokerMetrics, CloseReason } from './metrics.ts';
import { sendDirect } from './direct-message.ts';
import type { Session } from './session.ts';

/** `in/err` is sent once a second at most; `n` says how many errors it stands for. */
const INTERVAL_MS = 1000;
/** A device with more errors in a minute is broken or hostile, and is cut off. */
const ERRORS_PER_MINUTE_MAX = 100;

/** Tells devices on `in/err` what was refused and why. */
export class DeviceErrors {
  readonly #metrics: BrokerMetrics;
  readonly #close: (session: Session, reason: CloseReason) => void;

  constructor(metrics: BrokerMetrics, close: (session: Session, reason: CloseReason) => void) {
    this.#metrics = metrics;
    this.#close = close;
  }

  /** Counts an error of a device, tells it at most once a second, and closes it beyond 100 a minute. */
  report(session: Session, code: RefusalCode, channel: string, detail: string): void {
    const tally = session.errors;
    const now = performance.now();
    this.#metrics.errorTold(code);
    if (now - tally.minuteStartedAt > 60_000) {
      tally.minuteStartedAt = now;
      tally.inMinute = 0;
    }
    tally.inMinute += 1;
    tally.unsent += 1;
    if (now - tally.sentAt >= INTERVAL_MS) this.#send(session, code, channel, detail);
    if (tally.inMinute > ERRORS_PER_MINUTE_MAX) this.#close(session, 'errors');
  }

  #send(session: Session, code: RefusalCode, channel: string, detail: string): void {
    const { errors } = session;
    const hasTime = code === 'clock' || code === 'too_old';
    sendDirect(session, 'in/err', {
      code,
      ch: channel,
      msg: detail,
      n: errors.unsent,
      ...(hasTime ? { ts: Date.now() } : {}),
    });
    errors.sentAt = performance.now();
    errors.unsent = 0;
  }
}

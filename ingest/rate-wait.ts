/**
 * For how long a sender has been over a rate. One that sends less waits now and then, for a moment; one that
 * sends more has its next message there when the last has passed, for as long as it likes. A message that
 * finds the rate free is no end of that: a program that comes late to wake the last one lets two pass.
 */
export class RateWait {
  #isWaiting = false;
  #since = 0;
  #startedAt = 0;
  #endedAt = 0;

  /** Notes that a message begins to wait. */
  start(nowMs: number): void {
    const waitedMs = this.#endedAt - this.#startedAt;
    const pausedMs = nowMs - this.#endedAt;
    if (pausedMs >= waitedMs) this.#since = nowMs;
    this.#isWaiting = true;
    this.#startedAt = nowMs;
  }

  /** Notes that it waits no more. */
  end(nowMs: number): void {
    this.#isWaiting = false;
    this.#endedAt = nowMs;
  }

  /** How long that has lasted by now, in ms; 0 while nothing waits. */
  lastedMs(nowMs: number): number {
    return this.#isWaiting ? nowMs - this.#since : 0;
  }
}

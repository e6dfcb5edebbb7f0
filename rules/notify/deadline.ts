/**
 * A time within which an attempt must end. Its signal is aborted when the time is over, and with an outer
 * signal. Not `AbortSignal.any`: beside a signal that lives as long as the program, that keeps memory for
 * each attempt (Node.js 20). To be released when the attempt has ended.
 */
export class Deadline {
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal;
  readonly #timer: NodeJS.Timeout;
  #isOver = false;

  constructor(outer: AbortSignal, afterMs: number) {
    this.#outer = outer;
    this.#timer = setTimeout(() => {
      this.#isOver = true;
      this.end(new DOMException('no answer in time', 'TimeoutError'));
    }, afterMs).unref();
    if (outer.aborted) this.#endWithOuter();
    else outer.addEventListener('abort', this.#endWithOuter, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Whether the time is over, and not only the signal aborted. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Aborts the signal for a reason of its own. */
  end(reason: Error): void {
    this.#controller.abort(reason);
  }

  /** The attempt has ended: nothing is kept of it. */
  release(): void {
    clearTimeout(this.#timer);
    this.#outer.removeEventListener('abort', this.#endWithOuter);
  }

  readonly #endWithOuter = (): void => {
    this.#controller.abort(this.#outer.reason);
  };
}

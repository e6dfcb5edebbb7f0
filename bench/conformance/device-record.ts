import type { Happening } from './contact.ts';

/** The time of the run is over, or the device has done more than can be held. */
export class TimeOver extends Error {}

/** Most happenings that are held: what a device may publish in half an hour at the rate of the contract. */
const HAPPENINGS_MAX = 100_000;

/** What the device under test did, and those who wait for what it does next. */
export class DeviceRecord {
  readonly happenings: Happening[] = [];
  readonly #over: AbortSignal;
  readonly #isConnected: () => boolean;
  readonly #waiters = new Set<() => void>();

  /** @param isConnected whether the device is: only then time counts for {@link waitFor}. */
  constructor(over: AbortSignal, isConnected: () => boolean) {
    this.#over = over;
    this.#isConnected = isConnected;
    over.addEventListener('abort', () => this.#wake());
  }

  note(happening: Happening): void {
    this.happenings.push(happening);
    this.#wake();
  }

  /** See `Platform.waitFor`. @throws {TimeOver} */
  async waitFor<T>(
    match: (happening: Happening) => T | null,
    from: number,
    connectedMs: number,
  ): Promise<T | null> {
    let at = from;
    let leftMs = connectedMs;
    for (;;) {
      for (; at < this.happenings.length; at += 1) {
        const happening = this.happenings[at];
        const matched = happening === undefined ? null : match(happening);
        if (matched !== null) return matched;
      }
      if (leftMs <= 0) return null;
      const isTimed = this.#isConnected() && Number.isFinite(leftMs);
      const startedAt = performance.now();
      await this.#nextHappening(isTimed ? leftMs : null);
      if (isTimed) leftMs -= performance.now() - startedAt;
    }
  }

  /** Waits so long, whatever happens. @throws {TimeOver} */
  async rest(ms: number): Promise<void> {
    const until = performance.now() + ms;
    for (let left = ms; left > 0; left = until - performance.now()) {
      await this.#nextHappening(left);
    }
  }

  /** @param ms null: for as long as it takes. */
  async #nextHappening(ms: number | null): Promise<void> {
    this.#assertOpen();
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#waiters.delete(done);
        resolve();
      };
      const timer = ms === null ? undefined : setTimeout(done, Math.max(1, ms));
      this.#waiters.add(done);
    });
    this.#assertOpen();
  }

  #assertOpen(): void {
    if (this.#over.aborted) throw new TimeOver('the time is over');
    if (this.happenings.length > HAPPENINGS_MAX) throw new TimeOver('the device did too much');
  }

  #wake(): void {
    for (const waiter of [...this.#waiters]) waiter();
  }
}

/** Work for one packet that is no matter, in ms. */
const FREE_MS = 2;
/** Who asked for costly work rests this much longer than it kept everybody else waiting. */
const REST_FACTOR = 20;
/** What a filter costs that is added or removed, on disk and in the table, in ms. */
const CHANGE_MS = 0.02;
/** Longest rest for one packet, in ms. */
const REST_MS_MAX = 5000;

/**
 * Makes clients rest whose packets cost much time, such as a SUBSCRIBE that stands for thousands of
 * filters. All connections of one organization share their rest, so that many cost no more than one:
 * a twentieth of the time.
 */
export class Pacer {
  /** When each organization has rested, in ms of the monotonic clock. Those that have are forgotten. */
  readonly #restedAt = new Map<number, number>();

  /**
   * Does the work and resolves once the client may be read again.
   * @param work resolves to how many filters it has added and removed: what is done for them behind its
   * first wait is not seen here.
   */
  async pace(organizationId: number | null, work: () => Promise<number>): Promise<void> {
    const startedMs = performance.now();
    const done = work();
    const workedMs = performance.now() - startedMs;
    const changes = await done;
    const nowMs = performance.now();
    const busyMs = Math.max(workedMs, changes * CHANGE_MS);
    if (busyMs <= FREE_MS || organizationId === null) return;
    const restedAt =
      Math.max(nowMs, this.#restedAt.get(organizationId) ?? 0) + busyMs * REST_FACTOR;
    this.#restedAt.set(organizationId, restedAt);
    const restMs = Math.min(REST_MS_MAX, restedAt - nowMs);
    await new Promise((resolve) => setTimeout(resolve, restMs));
    if (this.#restedAt.get(organizationId) === restedAt) this.#restedAt.delete(organizationId);
  }
}

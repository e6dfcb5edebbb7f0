import type { PresencePage } from './presence-port.ts';
import type { StatusPage } from './presence.ts';

/** Longest rest behind a page, as a multiple of the time that the page took. */
const REST_FACTOR_MAX = 4;

/** What is asked for by one organization. */
interface Queue {
  /** Resolves when the last one that was asked for has been read and has rested. */
  last: Promise<void>;
  waiting: number;
}

/**
 * Reads pages of `status` messages for those who subscribe with wildcards: one at a time for each
 * organization, and the more are waiting the longer it rests in between. So scans of one organization
 * take little from the database and from everybody else, however many are asked for at once.
 */
export class StatusReads {
  readonly #read: (page: PresencePage) => Promise<StatusPage>;
  /** Organizations that are asked for something. */
  readonly #queues = new Map<number, Queue>();

  constructor(read: (page: PresencePage) => Promise<StatusPage>) {
    this.#read = read;
  }

  /** Reads a page when its turn has come. Rejects as the read does. */
  async page(query: PresencePage): Promise<StatusPage> {
    const { organizationId } = query;
    const queue = this.#queues.get(organizationId) ?? { last: Promise.resolve(), waiting: 0 };
    this.#queues.set(organizationId, queue);
    queue.waiting += 1;
    const turn = queue.last;
    let end = (): void => undefined;
    queue.last = new Promise((resolve) => {
      end = resolve;
    });
    await turn;
    const startedMs = performance.now();
    try {
      return await this.#read(query);
    } finally {
      queue.waiting -= 1;
      if (queue.waiting === 0) this.#queues.delete(organizationId);
      const factor = Math.min(REST_FACTOR_MAX, queue.waiting);
      setTimeout(end, (performance.now() - startedMs) * factor);
    }
  }
}

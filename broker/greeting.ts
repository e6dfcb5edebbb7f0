import { sendDirect } from './direct-message.ts';
import type { Session } from './session.ts';

/** Several filters in one go are one greeting. */
const COALESCE_MS = 20;

/**
 * Greets a device that subscribes to its inbox: `in/hello` carries the server's time, in ms since 1970,
 * for boards without a clock, and how many commands wait and which version of the configuration is
 * wanted. Both are 0: this version has neither.
 */
export class Greetings {
  readonly #due = new WeakSet<Session>();

  /** Tells that filters were granted to a device. @param topics canonical. */
  subscribed(session: Session, topics: readonly string[]): void {
    const { organization, device } = session.principal;
    const inbox = `v1/${organization}/${device}/in/`;
    if (!topics.some((topic) => topic.startsWith(inbox)) || this.#due.has(session)) return;
    this.#due.add(session);
    setTimeout(() => {
      this.#due.delete(session);
      sendDirect(session, 'in/hello', { ts: Date.now(), cmd: 0, cfg: 0 });
    }, COALESCE_MS);
  }
}

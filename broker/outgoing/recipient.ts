// HOT PATH: once per message and subscriber; see bench/RESULTS.md
import type { OutgoingMessage } from '../message.ts';
import type { Outbox } from './outbox.ts';

/**
 * A session as the interest table knows it: of a connection, or, when it is persistent, of a client
 * that comes and goes.
 */
export class Recipient {
  readonly clientId: string;
  readonly isClean: boolean;
  /** Null while the client is away. */
  outbox: Outbox | null = null;
  /** Told of each topic that is sent, while retained messages are being sent. */
  onLive: ((topic: string) => void) | null = null;
  /** Set once the session has ended. */
  isGone = false;

  constructor(clientId: string, isClean: boolean) {
    this.clientId = clientId;
    this.isClean = isClean;
  }

  /** Sends a message to the client if it is there. */
  deliver(message: OutgoingMessage, qos: 0 | 1): void {
    const { outbox, onLive } = this;
    if (outbox === null || !outbox.offer(message, qos)) return;
    if (onLive !== null) onLive(message.topic);
  }

  /** Tells that a message of this topic was put into the session's stored queue. */
  wake(topic: string): void {
    this.outbox?.wake();
    if (this.onLive !== null) this.onLive(topic);
  }
}

import {
  GeneratorConnection,
  type ConnectionObserver,
  type Target,
} from './generator-connection.ts';
import { PublishRing } from './publish-ring.ts';

/** What a {@link PacedConnection} tells its owner. */
export interface PacedOwner {
  /** A message was acknowledged `latencyMs` after it was written. */
  acknowledged(latencyMs: number): void;
  /** The connection ended without {@link PacedConnection.close}. */
  lost(reason: string): void;
}

/** One device that sends when it is told to, and knows how long each PUBACK took. */
export class PacedConnection {
  readonly #connection: GeneratorConnection;
  #allowed = 0;
  #isClosed = false;

  /** @param window messages that may be in flight; more are not sent. */
  constructor(target: Target, window: number, owner: PacedOwner) {
    const observer: ConnectionObserver = {
      opened: () => undefined,
      allowance: (wanted) => {
        const count = Math.min(wanted, this.#allowed);
        this.#allowed -= count;
        return count;
      },
      acknowledged: ({ sentAtMs }, slot) => {
        owner.acknowledged(performance.now() - (sentAtMs[slot] ?? 0));
      },
      closed: (_connection, _wasOpen, reason) => {
        if (!this.#isClosed) owner.lost(reason);
      },
    };
    this.#connection = new GeneratorConnection(0, new PublishRing('one', window), target, observer);
  }

  /** Opens the connection, also after it was lost. */
  open(): void {
    this.#isClosed = false;
    this.#connection.open();
  }

  /** Sends this many messages, as far as connection and window allow; the rest is not made up for. */
  send(count: number): void {
    this.#allowed = count;
    this.#connection.fill();
    this.#allowed = 0;
  }

  close(): void {
    this.#isClosed = true;
    this.#connection.close();
  }
}

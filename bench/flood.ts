import type { Target } from './generator-connection.ts';
import { PacedConnection } from './paced-connection.ts';

const TICK_MS = 5;
/** Messages in flight at once: a quarter of a second's worth at 2 000 a second. */
const WINDOW = 500;
/** It connects again nearly at once when its connection was ended. */
const RECONNECT_MS = 50;

/** The device that floods, and opens its connection again whenever it is ended. */
export class Flood {
  readonly #connection: PacedConnection;
  readonly #perTick: number;
  #timer: NodeJS.Timeout | undefined;
  #acknowledged = 0;
  #connections = 0;

  constructor(target: Target, perSecond: number) {
    this.#perTick = (perSecond * TICK_MS) / 1000;
    this.#connection = new PacedConnection(target, WINDOW, {
      acknowledged: () => {
        this.#acknowledged += 1;
      },
      lost: () => setTimeout(() => this.#connect(), RECONNECT_MS),
    });
  }

  start(): void {
    const startedAt = performance.now();
    let sent = 0;
    this.#timer = setInterval(() => {
      const due = ((performance.now() - startedAt) / TICK_MS) * this.#perTick;
      this.#connection.send(Math.floor(due - sent));
      sent += Math.floor(due - sent);
    }, TICK_MS);
    this.#connect();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#connection.close();
  }

  /** What was acknowledged, and how many connections were opened, since the beginning. */
  counts(): { acknowledged: number; connections: number } {
    return { acknowledged: this.#acknowledged, connections: this.#connections };
  }

  #connect(): void {
    if (this.#timer === undefined) return;
    this.#connections += 1;
    this.#connection.open();
  }
}

import { ToolFailedError } from '../errors.ts';
import type { Target } from './generator-connection.ts';
import { PacedConnection } from './paced-connection.ts';

/** Messages of one device that may be in flight. */
const WINDOW = 8;

/** Devices that send one message a second, each at a moment of chance in each second. */
export class CalmFleet {
  readonly #connections: readonly PacedConnection[];
  #times: number[] = [];
  #isStopped = false;

  constructor(targets: readonly Target[]) {
    this.#connections = targets.map(
      (target) =>
        new PacedConnection(target, WINDOW, {
          acknowledged: (latencyMs) => void this.#times.push(latencyMs),
          lost: (reason) => {
            throw new ToolFailedError(`a calm device lost its connection: ${reason}`);
          },
        }),
    );
  }

  start(): void {
    for (const connection of this.#connections) {
      connection.open();
      this.#sendEverySecond(connection);
    }
  }

  stop(): void {
    this.#isStopped = true;
    for (const connection of this.#connections) connection.close();
  }

  /** Times to PUBACK since the last call, in ms. */
  takeTimes(): number[] {
    const times = this.#times;
    this.#times = [];
    return times;
  }

  #sendEverySecond(connection: PacedConnection): void {
    if (this.#isStopped) return;
    setTimeout(() => connection.send(1), Math.random() * 1000);
    setTimeout(() => this.#sendEverySecond(connection), 1000);
  }
}

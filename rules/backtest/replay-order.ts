import { DeadlineHeap, type Timed } from '../../deadline-heap.ts';
import type { DeviceReplay } from './device-replay.ts';

/** A replay by the time of what is next in it. Here `deadlineMs` is in microseconds. */
interface Waiting extends Timed {
  readonly replay: DeviceReplay;
}

/** Replays that advance together, in the order of their times. */
export class ReplayOrder {
  readonly #waiting = new DeadlineHeap<Waiting>();

  constructor(replays: readonly DeviceReplay[]) {
    for (const replay of replays) this.#put({ replay, deadlineMs: 0, heapIndex: -1 });
  }

  /** Evaluates up to `max` times. @returns false when all are at the end of their span. */
  advance(max: number): boolean {
    for (let count = 0; count < max; count += 1) {
      const next = this.#waiting.takeDue(Infinity);
      if (next === null) return false;
      next.replay.step();
      this.#put(next);
    }
    return true;
  }

  #put(waiting: Waiting): void {
    const { nextMicros } = waiting.replay;
    if (nextMicros < Infinity) this.#waiting.put(waiting, nextMicros);
  }
}

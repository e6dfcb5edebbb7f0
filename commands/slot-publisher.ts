import type { Buffer } from 'node:buffer';
import { setTimeout as delay } from 'node:timers/promises';
import type { CommandWire } from './commands.ts';

/** What a slot is to say. */
export interface SlotWrite {
  readonly topic: string;
  readonly deviceId: number | null;
  /** Of two writes of one device the higher one counts. */
  readonly revision: number;
  readonly payload: Buffer;
}

/** After that the next write of a topic no longer waits for the one before. */
const PUBLISH_MS_MAX = 10_000;

/**
 * Publishes slots after COMMIT: of one topic one at a time, never an older revision behind a newer one.
 * What the broker does not take, or not in ten seconds, is left to `failed`, which compares the slot with
 * the table later.
 */
export class SlotPublisher {
  readonly #wire: Pick<CommandWire, 'publishRetained'>;
  readonly #failed: (topic: string) => void;
  readonly #underWay = new Map<string, { last: SlotWrite; next: SlotWrite | null }>();

  constructor(wire: Pick<CommandWire, 'publishRetained'>, failed: (topic: string) => void) {
    this.#wire = wire;
    this.#failed = failed;
  }

  /** Returns at once. */
  publish(write: SlotWrite): void {
    const lane = this.#underWay.get(write.topic);
    if (lane === undefined) {
      this.#underWay.set(write.topic, { last: write, next: null });
      void this.#run(write);
      return;
    }
    const newest = lane.next ?? lane.last;
    // A device that was made anew under the name of a deleted one begins to count anew.
    if (newest.deviceId === write.deviceId && newest.revision > write.revision) return;
    lane.next = write;
  }

  /** Whether a write of this topic is under way. */
  isBusy(topic: string): boolean {
    return this.#underWay.has(topic);
  }

  /** Resolves when nothing is under way; at most as long as one write may take, for each that waits. */
  async drained(): Promise<void> {
    while (this.#underWay.size > 0) await delay(5);
  }

  async #run(write: SlotWrite): Promise<void> {
    const { topic } = write;
    for (let turn: SlotWrite | null = write; turn !== null;) {
      if (!(await this.#isTaken(turn))) this.#failed(topic);
      const lane = this.#underWay.get(topic);
      turn = lane?.next ?? null;
      if (turn !== null) this.#underWay.set(topic, { last: turn, next: null });
    }
    this.#underWay.delete(topic);
  }

  async #isTaken({ topic, payload }: SlotWrite): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const tooLong = new Promise<boolean>((resolve) => {
      timer = setTimeout(() => resolve(false), PUBLISH_MS_MAX);
      timer.unref();
    });
    try {
      const taken = this.#wire.publishRetained(topic, payload).then(
        () => true,
        () => false,
      );
      return await Promise.race([taken, tooLong]);
    } catch {
      return false;
    } finally {
      clearTimeout(timer);
    }
  }
}

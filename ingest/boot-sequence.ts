import type { DeviceLane } from './device-lane.ts';
import { KnownNumbers } from './known-numbers.ts';
import { SequenceWindow } from './sequence-window.ts';

/**
 * The numbered messages of one boot of a device. A boot that the device has named outlives connections
 * and the program: its numbers are stored in the transaction that stores what they number. Without a
 * name (null) they are those of one connection and are forgotten with it: after a restart that was not
 * announced the device counts from the start again, and its new messages must not pass for copies.
 */
export class BootSequence {
  readonly device: DeviceLane;
  /** As the device's `hello` has it. */
  readonly boot: number | null;
  /** What is stored. */
  readonly committed: SequenceWindow;
  /** What is stored or stands in a batch, which is stored sooner or later. */
  readonly ahead: SequenceWindow;

  /**
   * Of what comes out of the spool: what is stored otherwise. Apart from {@link ahead}, because that must
   * go by the order in which messages came: numbers that live messages have reached meanwhile would move
   * it past those that still wait in the spool.
   */
  readonly others = new KnownNumbers();
  /** Whether gaps were given up: then it is not known how far there is none. */
  hasForgotten = false;

  constructor(device: DeviceLane, boot: number | null, committed = new SequenceWindow()) {
    this.device = device;
    this.boot = boot;
    this.committed = committed;
    this.ahead = committed.copy();
  }

  /** Whether a number is known to have come. */
  has(seq: number): boolean {
    return this.ahead.has(seq) || this.others.has(seq);
  }

  /** Notes a number that was stored without standing in a batch. */
  addStored(seq: number): void {
    this.committed.add(seq);
    this.ahead.add(seq);
  }
}

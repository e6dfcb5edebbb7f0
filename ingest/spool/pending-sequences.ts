// HOT PATH: twice per numbered message that is spooled; 0.1 µs
import { SequenceWindow } from '../sequence-window.ts';

/** Numbers of one boot of a device that wait in the spool. */
export interface PendingSequence {
  readonly boot: number;
  /**
   * Rising; of the last 64 up to the highest those that wait in the spool, or have left it while others of
   * the boot waited.
   */
  readonly seqs: readonly number[];
}

/** Boots of one device that are told apart; of those before, copies are told by their time alone. */
const BOOTS_MAX = 4;
/** How far {@link SequenceWindow} looks back. */
const WINDOW_SIZE = 64;

interface Entry {
  readonly boot: number;
  readonly window: SequenceWindow;
  /** Records that wait. */
  records: number;
}

/**
 * Which numbers of which devices wait in the spool. Bounded by four windows for each device of which
 * something numbered waits; a boot that has drained is forgotten.
 */
export class PendingSequences {
  readonly #byDevice = new Map<number, Entry[]>();

  /** Notes the numbers of a record that is on disk now. */
  add(deviceId: number, boot: number, seqs: readonly number[]): void {
    const entry = this.#entryOf(deviceId, boot);
    entry.records += 1;
    for (const seq of seqs) entry.window.add(seq);
  }

  /** Notes that a record with numbers has left the spool. */
  remove(deviceId: number, boot: number): void {
    const entries = this.#byDevice.get(deviceId);
    const index = entries?.findIndex((candidate) => candidate.boot === boot) ?? -1;
    const entry = entries?.[index];
    if (entries === undefined || entry === undefined) return;
    entry.records -= 1;
    if (entry.records > 0) return;
    entries.splice(index, 1);
    if (entries.length === 0) this.#byDevice.delete(deviceId);
  }

  /** The numbers of a device, boot by boot, in the order in which the boots came. */
  of(deviceId: number): PendingSequence[] {
    const entries = this.#byDevice.get(deviceId) ?? [];
    return entries.map(({ boot, window }) => {
      const seqs: number[] = [];
      const first = Math.max(0, window.highest - WINDOW_SIZE + 1);
      for (let seq = first; seq <= window.highest; seq += 1) if (window.has(seq)) seqs.push(seq);
      return { boot, seqs };
    });
  }

  #entryOf(deviceId: number, boot: number): Entry {
    let entries = this.#byDevice.get(deviceId);
    if (entries === undefined) this.#byDevice.set(deviceId, (entries = []));
    const known = entries.find((candidate) => candidate.boot === boot);
    if (known !== undefined) return known;
    if (entries.length === BOOTS_MAX) entries.shift();
    const entry = { boot, window: new SequenceWindow(), records: 0 };
    entries.push(entry);
    return entry;
  }
}

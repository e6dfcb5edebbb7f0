// HOT PATH: see bench/RESULTS.md
import type { BootSequence } from './boot-sequence.ts';
import { CopyBuffer } from './copy-buffer.ts';
import type { Slot } from './device-lane.ts';
import type { Message } from './message.ts';
import { rangesOf, type SequenceRange } from './sequence-ranges.ts';

const DAY_MICROS = 86_400_000_000;

/** The newest reading of each series of a batch, as columns, sorted by device and metric. */
export interface LatestColumns {
  readonly deviceIds: number[];
  readonly metricIds: number[];
  readonly times: number[];
  readonly values: (number | null)[];
  readonly texts: (string | null)[];
  readonly receivedTimes: number[];
  readonly qualities: number[];
}

/** The numbers that a run of messages adds to those of a boot. */
export interface SequenceRow {
  readonly deviceId: number;
  readonly boot: number;
  readonly received: readonly SequenceRange[];
}

/** Told of a number of a boot of a device that is stored. */
export type OnNumber = (deviceId: number, boot: number, seq: number) => void;

/**
 * Messages that are committed together, in order of arrival, with their readings encoded as they come.
 * A message has any number of rows, none included; rows of one message are contiguous.
 */
export class Batch {
  readonly messages: Message[] = [];
  readonly rows = new CopyBuffer();
  /** UTC days, counted from 1970, that the rows fall into. */
  readonly days = new Set<number>();
  rowCount = 0;
  /** Time of the oldest row, in microseconds since 1970; Infinity without rows. */
  oldestMicros = Infinity;
  payloadBytes = 0;
  duplicateMessages = 0;
  /** Offset in `rows` behind the last row of each message. */
  readonly #rowsEnd: number[] = [];
  readonly #touched: Slot[] = [];
  #lastDay = -1;
  #closedRows = 0;
  /** The numbers in this batch: whose, which, and the place of the message. */
  readonly #sequences: BootSequence[] = [];
  readonly #seqs: number[] = [];
  readonly #seqPlaces: number[] = [];

  /** Adds one reading of the message that the next {@link addMessage} closes. */
  addReading(
    slot: Slot,
    timeMicros: number,
    value: number | null,
    text: string | null,
    receivedMicros: number,
    quality: number,
  ): void {
    const { deviceId, metricId } = slot;
    this.rows.addReading(timeMicros, deviceId, metricId, value, text, receivedMicros, quality);
    this.rowCount += 1;
    if (timeMicros < this.oldestMicros) this.oldestMicros = timeMicros;
    const day = Math.floor(timeMicros / DAY_MICROS);
    if (day !== this.#lastDay) {
      this.#lastDay = day;
      this.days.add(day);
    }
    if (timeMicros < slot.timeMicros) return;
    slot.timeMicros = timeMicros;
    slot.value = value;
    slot.text = text;
    slot.receivedMicros = receivedMicros;
    slot.quality = quality;
    if (slot.batch !== this) {
      slot.batch = this;
      this.#touched.push(slot);
    }
  }

  /** Adds the number of a sample, or series, of the message that the next {@link addMessage} closes. */
  addSequence(sequence: BootSequence, seq: number): void {
    sequence.ahead.add(seq);
    this.#sequences.push(sequence);
    this.#seqs.push(seq);
    this.#seqPlaces.push(this.messages.length);
  }

  /** Closes a message: the readings added since the last call are its own. */
  addMessage(message: Message): void {
    const bytes = message.publication.payload.length;
    message.rowCount = this.rowCount - this.#closedRows;
    this.#closedRows = this.rowCount;
    this.messages.push(message);
    this.#rowsEnd.push(this.rows.length);
    this.payloadBytes += bytes;
    if (message.isDuplicate) this.duplicateMessages += 1;
    const { device } = message.lane;
    device.queuedMessages += 1;
    device.queuedRows += message.rowCount;
    device.queuedBytes += bytes;
  }

  /**
   * The numbers of the messages from `first` up to, and not with, `end`, as far as their boot has a name.
   * Sorted by device and boot, so that two writers lock rows in one order.
   */
  sequencesOf(first: number, end: number): SequenceRow[] {
    if (this.#seqs.length === 0) return [];
    const added = new Map<BootSequence, number[]>();
    for (const [index, sequence] of this.#sequences.entries()) {
      const place = this.#seqPlaces[index] ?? end;
      if (place < first || place >= end || sequence.boot === null) continue;
      const seqs = added.get(sequence);
      if (seqs === undefined) added.set(sequence, [this.#seqs[index] ?? 0]);
      else seqs.push(this.#seqs[index] ?? 0);
    }
    const rows: SequenceRow[] = [];
    for (const [{ boot, device }, seqs] of added) {
      rows.push({ deviceId: device.deviceId, boot: boot ?? 0, received: rangesOf(seqs) });
    }
    return rows.sort((a, b) => a.deviceId - b.deviceId || a.boot - b.boot);
  }

  /**
   * Notes that all of it is stored, or in quarantine: the devices' parts of the queue are free.
   * @param onNumber told of the numbers whose boot has a name.
   */
  settle(onNumber?: OnNumber): void {
    for (const [index, { committed, boot, device }] of this.#sequences.entries()) {
      const seq = this.#seqs[index] ?? 0;
      committed.add(seq);
      if (boot !== null) onNumber?.(device.deviceId, boot, seq);
    }
    for (const { lane, rowCount, publication } of this.messages) {
      const { device } = lane;
      device.queuedMessages -= 1;
      device.queuedRows -= rowCount;
      device.queuedBytes -= publication.payload.length;
    }
  }

  /** The encoded rows of the messages from `first` up to, and not with, `end`. */
  rowsOf(first: number, end: number): Buffer {
    const start = first === 0 ? 0 : (this.#rowsEnd[first - 1] ?? 0);
    return this.rows.slice(start, end === 0 ? 0 : (this.#rowsEnd[end - 1] ?? start));
  }

  /**
   * Takes the newest readings down, and lets go of the slots: later batches move those on. Sorted, so
   * that two writers lock rows of `device_latest` in one order.
   */
  takeLatest(): LatestColumns {
    const slots = this.#touched.sort((a, b) => a.deviceId - b.deviceId || a.metricId - b.metricId);
    const columns: LatestColumns = {
      deviceIds: [],
      metricIds: [],
      times: [],
      values: [],
      texts: [],
      receivedTimes: [],
      qualities: [],
    };
    for (const slot of slots) {
      columns.deviceIds.push(slot.deviceId);
      columns.metricIds.push(slot.metricId);
      columns.times.push(slot.timeMicros);
      columns.values.push(slot.value);
      columns.texts.push(slot.text);
      columns.receivedTimes.push(slot.receivedMicros);
      columns.qualities.push(slot.quality);
      slot.batch = null;
    }
    this.#touched.length = 0;
    return columns;
  }
}

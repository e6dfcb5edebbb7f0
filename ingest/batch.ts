// HOT PATH: see bench/RESULTS.md
import { CopyBuffer } from './copy-buffer.ts';
import type { Slot } from './lane.ts';
import type { Message } from './message.ts';

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
  payloadBytes = 0;
  /** Offset in `rows` behind the last row of each message. */
  readonly #rowsEnd: number[] = [];
  readonly #touched: Slot[] = [];
  #lastDay = -1;

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

  /** Closes a message: the readings added since the last call are its own. */
  addMessage(message: Message): void {
    this.messages.push(message);
    this.#rowsEnd.push(this.rows.length);
    this.payloadBytes += message.publication.payload.length;
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

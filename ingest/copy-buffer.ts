// HOT PATH: see bench/RESULTS.md

/** Microseconds from 1970-01-01, where our times start, to 2000-01-01, where PostgreSQL's do. */
const POSTGRES_EPOCH_MICROS = 946_684_800_000_000;
const TWO_POW_32 = 4_294_967_296;
/** Fields count, and length and value of each column, with null text. */
const ROW_BYTES = 64;
const FIELDS = 7;
const TEXT_BYTES_MAX = 1024;

/** Signature, flags and header extension of PostgreSQL's binary COPY format. */
export const COPY_HEADER = Buffer.concat([
  Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1'),
  Buffer.alloc(8),
]);
/** A field count of -1 ends the rows. */
export const COPY_TRAILER = Buffer.from([0xff, 0xff]);

/**
 * Rows of `reading` in PostgreSQL's binary COPY format, without header and trailer, so that any run of
 * rows can be sent by itself. Grows by doubling.
 */
export class CopyBuffer {
  #bytes: Buffer;
  #view: DataView;
  #length = 0;

  constructor(capacity = 16_384) {
    this.#bytes = Buffer.allocUnsafeSlow(capacity);
    this.#view = new DataView(this.#bytes.buffer);
  }

  /** Bytes written so far; also the offset of the next row. */
  get length(): number {
    return this.#length;
  }

  /** The rows between two offsets that {@link length} gave. Shares memory with the buffer. */
  slice(start: number, end: number): Buffer {
    return this.#bytes.subarray(start, end);
  }

  /** Adds one row. Times are whole microseconds since 1970. `text` must be free of U+0000. */
  addReading(
    timeMicros: number,
    deviceId: number,
    metricId: number,
    value: number | null,
    text: string | null,
    receivedMicros: number,
    quality: number,
  ): void {
    this.#reserve(text === null ? ROW_BYTES : ROW_BYTES + TEXT_BYTES_MAX);
    const view = this.#view;
    let at = this.#length;
    view.setInt16(at, FIELDS);
    at = this.#addTime(at + 2, timeMicros);
    view.setInt32(at, 4);
    view.setInt32(at + 4, deviceId);
    view.setInt32(at + 8, 4);
    view.setInt32(at + 12, metricId);
    at += 16;
    if (value === null) {
      view.setInt32(at, -1);
      at += 4;
    } else {
      view.setInt32(at, 8);
      view.setFloat64(at + 4, value);
      at += 12;
    }
    if (text === null) {
      view.setInt32(at, -1);
      at += 4;
    } else {
      const bytes = this.#bytes.write(text, at + 4, 'utf8');
      view.setInt32(at, bytes);
      at += 4 + bytes;
    }
    at = this.#addTime(at, receivedMicros);
    view.setInt32(at, 2);
    view.setInt16(at + 4, quality);
    this.#length = at + 6;
  }

  #addTime(at: number, micros: number): number {
    const shifted = micros - POSTGRES_EPOCH_MICROS;
    this.#view.setInt32(at, 8);
    this.#view.setInt32(at + 4, Math.floor(shifted / TWO_POW_32));
    this.#view.setUint32(at + 8, (shifted % TWO_POW_32) >>> 0);
    return at + 12;
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#bytes.length) return;
    const grown = Buffer.allocUnsafeSlow(this.#bytes.length * 2 + bytes);
    this.#bytes.copy(grown, 0, 0, this.#length);
    this.#bytes = grown;
    this.#view = new DataView(grown.buffer);
  }
}

/** Reads device and time out of rows that a {@link CopyBuffer} has made. */
export function* readCopyRows(
  rows: Buffer,
): Generator<{ readonly deviceId: number; readonly timeMicros: number }> {
  let at = 0;
  while (at < rows.length) {
    const timeMicros =
      rows.readInt32BE(at + 6) * TWO_POW_32 + rows.readUInt32BE(at + 10) + POSTGRES_EPOCH_MICROS;
    yield { deviceId: rows.readInt32BE(at + 18), timeMicros };
    at += 2;
    for (let field = 0; field < FIELDS; field += 1) at += 4 + Math.max(0, rows.readInt32BE(at));
  }
}

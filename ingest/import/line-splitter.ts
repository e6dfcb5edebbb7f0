/** So much of the beginning of a file is its fingerprint. A body that goes on behind it begins with it. */
export const HEAD_BYTES = 65_536;
/** Longest line of a file that is imported. */
export const LINE_BYTES_MAX = 65_536;

/** One line of a file. */
export interface Line {
  /** From 1. */
  readonly number: number;
  /** Bytes of the file up to and with its line end. */
  readonly endOffset: number;
  /** Without the line end; of a line that is too long only the beginning. */
  readonly bytes: Buffer;
  readonly isTooLong: boolean;
}

/** Kept of a line that is too long, so that people recognize it. */
const KEPT_BYTES = 1024;
const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;

/**
 * Cuts a stream of bytes into lines that end with LF or CR LF. Holds at most one line of the longest
 * allowed length, whatever comes. Empty lines are counted and left out.
 */
export class LineSplitter {
  readonly #bytesMax: number;
  #number: number;
  #offset: number;
  /** What came of the line that has not ended. */
  #parts: Buffer[] = [];
  #partBytes = 0;
  #isTooLong = false;
  /** Bytes of the line that has not ended, also those that were not kept. */
  #pending = 0;

  /**
   * @param bytesMax longer lines are cut.
   * @param start where in the file the first byte stands, and how many lines are before it.
   */
  constructor(bytesMax: number, start: { readonly byteOffset: number; readonly lines: number }) {
    this.#bytesMax = bytesMax;
    this.#offset = start.byteOffset;
    this.#number = start.lines;
  }

  /** Lines that have ended so far, empty ones too. */
  get lines(): number {
    return this.#number;
  }

  /** Bytes of the file up to the end of the last line that has ended. */
  get byteOffset(): number {
    return this.#offset;
  }

  /** The lines that end in this chunk. */
  push(chunk: Buffer): Line[] {
    const lines: Line[] = [];
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(LINE_FEED, start);
      if (end === -1) break;
      this.#add(chunk.subarray(start, end), false);
      this.#endLine(end + 1 - start, lines);
      start = end + 1;
    }
    if (start < chunk.length) {
      this.#add(chunk.subarray(start), true);
      this.#pending += chunk.length - start;
    }
    return lines;
  }

  /** The last line, when no line end stands behind it. */
  end(): Line[] {
    const lines: Line[] = [];
    if (this.#pending > 0) this.#endLine(0, lines);
    return lines;
  }

  /** @param mustCopy the line goes on: what is kept of it must not hold the whole chunk. */
  #add(bytes: Buffer, mustCopy: boolean): void {
    const room = (this.#isTooLong ? KEPT_BYTES : this.#bytesMax) - this.#partBytes;
    if (bytes.length > room) this.#isTooLong = true;
    if (room <= 0 || bytes.length === 0) return;
    const kept = bytes.subarray(0, room);
    this.#parts.push(mustCopy ? Buffer.from(kept) : kept);
    this.#partBytes += kept.length;
  }

  #endLine(bytes: number, lines: Line[]): void {
    this.#number += 1;
    this.#offset += this.#pending + bytes;
    this.#pending = 0;
    const line = this.#takeLine();
    if (line.length === 0 && !this.#isTooLong) return;
    lines.push({
      number: this.#number,
      endOffset: this.#offset,
      bytes: this.#isTooLong ? line.subarray(0, KEPT_BYTES) : line,
      isTooLong: this.#isTooLong,
    });
    this.#isTooLong = false;
  }

  #takeLine(): Buffer {
    const [only = EMPTY] = this.#parts;
    const line = this.#parts.length > 1 ? Buffer.concat(this.#parts, this.#partBytes) : only;
    this.#parts = [];
    this.#partBytes = 0;
    return line.at(-1) === CARRIAGE_RETURN ? line.subarray(0, -1) : line;
  }
}

const EMPTY = Buffer.alloc(0);

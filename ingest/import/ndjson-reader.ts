import { Refusal, VALUE_MAX } from '../../firmware-protocol/contract.ts';
import { readJson } from '../../firmware-protocol/json-text.ts';
import {
  findFault,
  LineRefusal,
  refuseLong,
  type ImportMessage,
  type ImportTimes,
  type LineReader,
  type ReadLine,
} from './import-line.ts';
import type { Line } from './line-splitter.ts';

/** What a reader needs to know. */
export interface ReaderOptions {
  /** Longest line, for what is told of one that is longer. */
  readonly lineBytesMax: number;
  /** Device of a line that names none; null: every line has to. */
  readonly device: string | null;
  readonly times: ImportTimes;
}

/**
 * Reads lines such as `{"device":"boiler","ts":1795235431857,"temp":21.5}`: `device` and one of the forms
 * of channel `data`. A `seq` is left out: it counts within a boot, which a file does not tell, and what
 * is stored is told apart by its time.
 */
export class NdjsonReader implements LineReader {
  readonly #options: ReaderOptions;

  constructor(options: ReaderOptions) {
    this.#options = options;
  }

  read(lines: readonly Line[]): ReadLine[] {
    return lines.map((line) => ({ line, outcome: this.#readLine(line) }));
  }

  #readLine(line: Line): ImportMessage | LineRefusal | null {
    const tooLong = refuseLong(line, this.#options.lineBytesMax);
    if (tooLong !== null) return tooLong;
    const value = readJson(line.number === 1 ? withoutMark(line.bytes) : line.bytes);
    if (value instanceof Refusal) return new LineRefusal(value.code, value.detail);
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      return new LineRefusal('bad_line', 'the line is not a JSON object');
    }
    const {
      device = this.#options.device,
      seq: _,
      ...sample
    } = value as {
      device?: unknown;
      seq?: unknown;
    };
    if (typeof device !== 'string' || device === '') {
      return new LineRefusal('bad_device', 'no text in "device"');
    }
    const text = JSON.stringify(sample);
    // Beyond the bound a device's value counts as missing; of a file that would be a loss without a word.
    if (MAYBE_BEYOND.test(text) && hasBeyond(sample)) {
      return new LineRefusal('bad_value', 'a number is out of range');
    }
    const payload = Buffer.from(text);
    return findFault(payload, this.#options.times) ?? { device, payload };
  }
}

/** Infinity becomes null in JSON. */
const MAYBE_BEYOND = /null|e\+(?:29|30)\d/;

function hasBeyond(value: object): boolean {
  let found = false;
  JSON.stringify(value, (_key, member: unknown) => {
    found ||= typeof member === 'number' && Math.abs(member) > VALUE_MAX;
    return member;
  });
  return found;
}

/** Without the byte order mark that some programs write in front of UTF-8. */
export function withoutMark(bytes: Buffer): Buffer {
  return bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes;
}

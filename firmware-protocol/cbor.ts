// HOT PATH: once per message in CBOR; 0.14 µs for one value, 0.7 µs for six; docs/adr/0017
import { isUtf8, type Buffer } from 'node:buffer';
import { Refusal } from './contract.ts';
import { DEPTH_MAX } from './json-text.ts';

/** First bytes of a payload that is read as CBOR: arrays, maps and tags. JSON text never starts so. */
const FIRST_BYTE_MIN = 0x80;
/** From here on it may be a byte order mark as well: such a payload is no JSON and says so. */
const FIRST_BYTE_END = 0xe0;

/** Most items, names among them, that are read at all: a SenML pack of 2000 values needs about 18 000. */
const ITEMS_MAX = 20_000;

/** Most members of one map. A sample that is accepted has 70 at most. */
const MEMBERS_MAX = 128;

const UNSIGNED = 0;
const NEGATIVE = 1;
const BYTES = 2;
const TEXT = 3;
const ARRAY = 4;
const MAP = 5;
const TAG = 6;

const FALSE = 20;
const TRUE = 21;
const NULL = 22;
const HALF = 25;
const SINGLE = 26;
const DOUBLE = 27;

/** Strings up to this length are put together here, the rest by the engine. Bytes. */
const SHORT_BYTES_MAX = 24;

/** Whether a payload with this first byte is CBOR; undefined: an empty one. */
export function isCbor(first: number | undefined): boolean {
  return first !== undefined && first >= FIRST_BYTE_MIN && first < FIRST_BYTE_END;
}

/**
 * Reads a payload as one item of CBOR (RFC 8949) into the values that JSON of the same meaning gives:
 * objects, arrays, numbers, texts, bools, null. A float that is no finite number becomes null, an integer
 * beyond 2^53 the nearest double. What JSON has no word for is refused: byte strings, tags (and so
 * bignums), undefined, keys that are no texts; so are indefinite lengths, names that stand twice and bytes
 * behind the end. Memory follows the bytes that are there, not the lengths that they claim. Never throws;
 * linear in the size.
 * @param labels names of integer keys, as SenML has them; other integer keys are left out with their
 * values. Null: integer keys are refused.
 */
export function readCbor(payload: Buffer, labels: ReadonlyMap<number, string> | null): unknown {
  return new CborReader(payload, labels).read();
}

/** Made for one payload. After a fault the position is the end, so that every loop ends. */
class CborReader {
  readonly #bytes: Buffer;
  readonly #end: number;
  readonly #labels: ReadonlyMap<number, string> | null;
  #at = 0;
  #items = 0;
  #fault: Refusal | null = null;

  constructor(payload: Buffer, labels: ReadonlyMap<number, string> | null) {
    this.#bytes = payload;
    this.#end = payload.length;
    this.#labels = labels;
  }

  read(): unknown {
    const value = this.#readItem(0);
    if (this.#fault === null && this.#at < this.#end) {
      return new Refusal('bad_cbor', `${this.#end - this.#at} bytes behind the end`);
    }
    return this.#fault ?? value;
  }

  #readItem(depth: number): unknown {
    const at = this.#at;
    const head = this.#bytes[at];
    if (head === undefined) return this.#fail('ends too early');
    this.#at = at + 1;
    if ((this.#items += 1) > ITEMS_MAX) {
      return this.#refuse(new Refusal('too_many', `more than ${ITEMS_MAX} items`));
    }
    const major = head >> 5;
    const short = head & 31;
    if (major === 7) return this.#readSimple(short);
    const size = short < 24 ? short : this.#readSize(short);
    switch (major) {
      case UNSIGNED:
        return size;
      case NEGATIVE:
        return this.#negative(size, short);
      case TEXT:
        return this.#readText(size);
      case ARRAY:
        return depth < DEPTH_MAX ? this.#readArray(size, depth + 1) : this.#failDeep();
      case MAP:
        return depth < DEPTH_MAX ? this.#readMap(size, depth + 1) : this.#failDeep();
      default:
        return this.#failMajor(major, at);
    }
  }

  #readArray(length: number, depth: number): unknown {
    // Each item has a byte at least.
    if (length > this.#end - this.#at) return this.#fail('ends too early');
    const items: unknown[] = [];
    for (let index = 0; index < length; index += 1) {
      items.push(this.#readItem(depth));
      if (this.#fault !== null) return null;
    }
    return items;
  }

  #readMap(length: number, depth: number): unknown {
    if (length * 2 > this.#end - this.#at) return this.#fail('ends too early');
    if (length > MEMBERS_MAX) {
      return this.#refuse(new Refusal('too_many', `more than ${MEMBERS_MAX} members`));
    }
    const members: Record<string, unknown> = {};
    for (let index = 0; index < length; index += 1) {
      const key = this.#readKey();
      if (this.#fault !== null) return null;
      const value = this.#readItem(depth);
      if (this.#fault !== null) return null;
      if (key === null) continue;
      // No value is undefined: what is there comes from this map or from Object.prototype.
      if (members[key] !== undefined && Object.hasOwn(members, key)) {
        return this.#fail('a name stands twice');
      }
      members[key] = value;
    }
    return members;
  }

  /** Null for an integer key without a name. */
  #readKey(): string | null {
    const at = this.#at;
    const major = (this.#bytes[at] ?? 0) >> 5;
    const isLabel = major <= NEGATIVE && this.#labels !== null;
    if (major !== TEXT && !isLabel) return this.#fail('a key is not a text', at);
    const key = this.#readItem(DEPTH_MAX);
    if (typeof key === 'number') return this.#labels?.get(key) ?? null;
    if (key !== '__proto__') return key as string;
    return this.#refuse(new Refusal('bad_name', '__proto__ is not a metric name'));
  }

  /** The argument behind a head of 24 and more. */
  #readSize(short: number): number {
    const at = this.#at;
    const length = short <= 27 ? 1 << (short - 24) : 0;
    if (length === 0) {
      return this.#failSize(short === 31 ? 'indefinite length' : 'reserved length', at - 1);
    }
    if (at + length > this.#end) return this.#failSize('ends too early', at - 1);
    this.#at = at + length;
    const bytes = this.#bytes;
    if (length === 1) return bytes[at] ?? 0;
    if (length === 2) return bytes.readUInt16BE(at);
    if (length === 4) return bytes.readUInt32BE(at);
    return bytes.readUInt32BE(at) * 0x1_0000_0000 + bytes.readUInt32BE(at + 4);
  }

  /** -1 - size, rounded once. */
  #negative(size: number, short: number): number {
    if (short < 27 || size < Number.MAX_SAFE_INTEGER) return -1 - size;
    const low = this.#bytes.readUInt32BE(this.#at - 4);
    const high = this.#bytes.readUInt32BE(this.#at - 8);
    return low === 0xffff_ffff
      ? -((high + 1) * 0x1_0000_0000)
      : -(high * 0x1_0000_0000 + (low + 1));
  }

  #readText(length: number): string {
    const start = this.#at;
    const end = start + length;
    if (end > this.#end) return this.#failText('ends too early', start);
    this.#at = end;
    if (length <= SHORT_BYTES_MAX) {
      const text = this.#readAscii(start, end);
      if (text !== null) return text;
    }
    const text = this.#bytes.toString('utf8', start, end);
    if (text.includes('\uFFFD') && !isUtf8(this.#bytes.subarray(start, end))) {
      return this.#failText('a text is not UTF-8', start);
    }
    return text;
  }

  /** Names are short, and short texts cheaper so than by a call into the engine. */
  #readAscii(start: number, end: number): string | null {
    let text = '';
    for (let at = start; at < end; at += 1) {
      const byte = this.#bytes[at] ?? 0x80;
      if (byte >= 0x80) return null;
      text += String.fromCharCode(byte);
    }
    return text;
  }

  #readSimple(short: number): unknown {
    if (short === DOUBLE || short === SINGLE || short === HALF) return this.#readFloat(short);
    if (short === TRUE) return true;
    if (short === FALSE) return false;
    if (short === NULL) return null;
    const what = short === 23 ? 'undefined' : short === 31 ? 'a break' : 'a simple value';
    return this.#fail(what, this.#at - 1);
  }

  #readFloat(short: number): unknown {
    const at = this.#at;
    const length = 1 << (short - 24);
    if (at + length > this.#end) return this.#fail('ends too early', at - 1);
    this.#at = at + length;
    const value =
      short === DOUBLE
        ? this.#bytes.readDoubleBE(at)
        : short === SINGLE
          ? this.#bytes.readFloatBE(at)
          : halfFloat(this.#bytes.readUInt16BE(at));
    return Number.isFinite(value) ? value : null;
  }

  #failMajor(major: number, at: number): null {
    if (major === TAG) return this.#fail('a tag', at);
    return this.#fail(major === BYTES ? 'a byte string' : 'not CBOR', at);
  }

  #failDeep(): null {
    return this.#refuse(
      new Refusal('too_deep', `more than ${DEPTH_MAX} levels at ${this.#at - 1}`),
    );
  }

  #failSize(what: string, at: number): number {
    this.#fail(what, at);
    return 0;
  }

  #failText(what: string, at: number): string {
    this.#fail(what, at);
    return '';
  }

  #fail(what: string, at = this.#at): null {
    return this.#refuse(new Refusal('bad_cbor', `${what} at ${at}`));
  }

  /** The first fault stands. */
  #refuse(refusal: Refusal): null {
    this.#fault ??= refusal;
    return null;
  }
}

function halfFloat(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

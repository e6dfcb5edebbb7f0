/** Which payload the load generator sends. The time stands first, so its digits have a fixed place. */
export type PayloadKind = 'one' | 'series' | 'numbered';

/** Rows that one message of each kind becomes. */
export const rowsPerMessage: Readonly<Record<PayloadKind, number>> = {
  one: 1,
  series: 60,
  numbered: 1,
};

/** Where a device of Puback publishes. */
export const TELEMETRY_TOPIC = 'v1/me/data';
const SERIES_SAMPLES = 20;
const PUBLISH_QOS_1 = 0x32;
const PUBLISH_QOS_1_DUP = 0x3a;
const TIME_DIGITS = 13;
/** Numbers of `numbered` messages start here: each has ten digits, none a leading zero. */
export const FIRST_NUMBER = 1_000_000_000;
const NUMBER_DIGITS = 10;
const ZERO = 0x30;

/**
 * The PUBLISH packets of one connection, made once and sent from the same memory for ever: `window`
 * slots of equal length, packet identifier = slot + 1. For the next message only the digits of the time
 * (and of the number) change, and only after PUBACK of the slot: the broker had read it by then, so a
 * write under way never sees the change.
 */
export class PublishRing {
  readonly bytes: Buffer;
  readonly slotBytes: number;
  readonly window: number;
  readonly #timeAt: number;
  readonly #numberAt: number;
  readonly #stepMs: number;
  readonly #times: Float64Array;
  readonly #numbers: Float64Array;
  #lastTimeMs = 0;
  #nextNumber = FIRST_NUMBER;

  constructor(kind: PayloadKind, window: number, topic = TELEMETRY_TOPIC) {
    const payload = payloadText(kind);
    const slot = publishPacket(topic, payload);
    this.slotBytes = slot.length;
    this.window = window;
    this.bytes = Buffer.allocUnsafe(slot.length * window);
    for (let index = 0; index < window; index += 1) {
      slot.writeUInt16BE(index + 1, slot.length - payload.length - 2);
      slot.copy(this.bytes, index * slot.length);
    }
    const payloadAt = slot.length - payload.length;
    this.#timeAt = payloadAt + '{"ts":'.length;
    this.#numberAt = kind === 'numbered' ? payloadAt + payload.lastIndexOf(':') + 1 : -1;
    // The samples of a series are one millisecond apart, and no two messages may share a time.
    this.#stepMs = kind === 'series' ? SERIES_SAMPLES : 1;
    this.#times = new Float64Array(window);
    this.#numbers = new Float64Array(window);
  }

  /** Makes a slot the next message. Its time is `nowMs`, or later when that is taken. */
  renew(slot: number, nowMs: number): void {
    const timeMs = Math.max(nowMs, this.#lastTimeMs + this.#stepMs);
    this.#lastTimeMs = timeMs;
    this.#times[slot] = timeMs;
    const at = slot * this.slotBytes;
    this.bytes[at] = PUBLISH_QOS_1;
    this.#writeDigits(at + this.#timeAt, timeMs, TIME_DIGITS);
    if (this.#numberAt < 0) return;
    this.#numbers[slot] = this.#nextNumber;
    this.#writeDigits(at + this.#numberAt, this.#nextNumber, NUMBER_DIGITS);
    this.#nextNumber += 1;
  }

  /** Marks a slot as sent before [MQTT-3.3.1-1]. */
  setDup(slot: number): void {
    this.bytes[slot * this.slotBytes] = PUBLISH_QOS_1_DUP;
  }

  timeMs(slot: number): number {
    return this.#times[slot] ?? 0;
  }

  /** The value of a numbered message, 0 in the other kinds. */
  number(slot: number): number {
    return this.#numbers[slot] ?? 0;
  }

  #writeDigits(at: number, value: number, digits: number): void {
    // Two halves of at most seven digits stay in small integers, where division is cheap.
    let high = Math.floor(value / 1e7);
    let low = value - high * 1e7;
    let index = at + digits - 1;
    for (let left = 7; left > 0; left -= 1, index -= 1) {
      const rest = (low / 10) | 0;
      this.bytes[index] = ZERO + low - rest * 10;
      low = rest;
    }
    for (; index >= at; index -= 1) {
      const rest = (high / 10) | 0;
      this.bytes[index] = ZERO + high - rest * 10;
      high = rest;
    }
  }
}

/** CONNECT of MQTT 3.1.1 with clean session. Keep alive in seconds, 0 for none. */
export function connectPacket(
  clientId: string,
  username: string,
  password: string,
  keepAliveS = 0,
): Buffer {
  const keepAlive = [keepAliveS >> 8, keepAliveS & 0xff];
  const header = Buffer.from([0, 4, 0x4d, 0x51, 0x54, 0x54, 4, 0xc2, ...keepAlive]);
  const body = Buffer.concat([header, ...[clientId, username, password].map(prefixedText)]);
  return Buffer.concat([Buffer.from([0x10]), remainingLength(body.length), body]);
}

function publishPacket(topicName: string, payload: string): Buffer {
  const topic = prefixedText(topicName);
  const length = remainingLength(topic.length + 2 + payload.length);
  const identifier = Buffer.alloc(2);
  return Buffer.concat([
    Buffer.from([PUBLISH_QOS_1]),
    length,
    topic,
    identifier,
    Buffer.from(payload),
  ]);
}

function payloadText(kind: PayloadKind): string {
  const ts = '0'.repeat(TIME_DIGITS);
  if (kind === 'one') return `{"ts":${ts},"temp":21.5}`;
  if (kind === 'numbered') return `{"ts":${ts},"n":${FIRST_NUMBER}}`;
  const series = (first: number, step: number): string =>
    Array.from({ length: SERIES_SAMPLES }, (_, index) => (first + index * step).toFixed(2)).join();
  return `{"ts":${ts},"dt":1,"temp":[${series(21.5, 0.03)}],"rh":[${series(48, 0.11)}],"lux":[${series(310, 1.7)}]}`;
}

function prefixedText(text: string): Buffer {
  const bytes = Buffer.from(text);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

function remainingLength(length: number): Buffer {
  const bytes: number[] = [];
  let left = length;
  do {
    bytes.push((left & 127) | (left > 127 ? 128 : 0));
    left >>= 7;
  } while (left > 0);
  return Buffer.from(bytes);
}

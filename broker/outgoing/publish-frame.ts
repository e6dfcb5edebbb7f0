// HOT PATH: once per message and spelling of its topic; at QoS 1 a copy for each subscriber
import type { OutgoingMessage } from '../message.ts';

/** A payload of this size, in bytes, is not copied behind its header: it is written by itself. */
export const LARGE_PAYLOAD_BYTES = 16_384;
/** Return code of SUBACK for a filter that is not granted [MQTT-3.9.3-2]. */
export const SUBACK_FAILURE = 0x80;
const PUBLISH = 0x30;
const DUP_FLAG = 0x08;
const SUBACK = 0x90;
const UNSUBACK = 0xb0;

/**
 * Writes PUBLISH packets. What was encoded last is kept, so that a message that goes to many
 * subscribers is encoded once.
 */
export class PublishEncoder {
  #message: OutgoingMessage | null = null;
  #topic = '';
  #qos: 0 | 1 = 0;
  #frame: Buffer = Buffer.alloc(0);
  #packetIdAt = 0;

  /**
   * The packet at QoS 0; without its payload when that is of {@link LARGE_PAYLOAD_BYTES} or more.
   * @param topic as the subscriber spells it.
   * @returns bytes that are shared: they must not be changed.
   */
  encode(message: OutgoingMessage, topic: string): Buffer {
    if (!this.#isLast(message, topic, 0)) this.#encode(message, topic, 0);
    return this.#frame;
  }

  /** As {@link encode}, at QoS 1; the bytes are the caller's own. */
  encodeNumbered(
    message: OutgoingMessage,
    topic: string,
    packetId: number,
    isDup: boolean,
  ): Buffer {
    if (!this.#isLast(message, topic, 1)) this.#encode(message, topic, 1);
    const frame = Buffer.allocUnsafe(this.#frame.length);
    this.#frame.copy(frame);
    if (isDup) frame[0] = (frame[0] as number) | DUP_FLAG;
    frame[this.#packetIdAt] = packetId >> 8;
    frame[this.#packetIdAt + 1] = packetId & 0xff;
    return frame;
  }

  #isLast(message: OutgoingMessage, topic: string, qos: 0 | 1): boolean {
    return message === this.#message && qos === this.#qos && topic === this.#topic;
  }

  #encode(message: OutgoingMessage, topic: string, qos: 0 | 1): void {
    const { payload } = message;
    const topicBytes = Buffer.byteLength(topic);
    const headBytes = 2 + topicBytes + qos * 2;
    const isWhole = payload.length < LARGE_PAYLOAD_BYTES;
    const remaining = headBytes + payload.length;
    const start = 1 + lengthBytes(remaining);
    const frame = Buffer.allocUnsafe(start + (isWhole ? remaining : headBytes));
    frame[0] = PUBLISH | (qos << 1) | (message.retain ? 1 : 0);
    writeLength(frame, remaining);
    frame.writeUInt16BE(topicBytes, start);
    frame.write(topic, start + 2, 'utf8');
    if (isWhole) payload.copy(frame, start + headBytes);
    this.#message = message;
    this.#topic = topic;
    this.#qos = qos;
    this.#frame = frame;
    this.#packetIdAt = start + 2 + topicBytes;
  }
}

/** SUBACK with one code for each filter of the SUBSCRIBE, in its order [MQTT-3.8.4-5, MQTT-3.9.3-1]. */
export function encodeSuback(packetId: number, codes: readonly number[]): Buffer {
  const remaining = 2 + codes.length;
  const start = 1 + lengthBytes(remaining);
  const frame = Buffer.allocUnsafe(start + remaining);
  frame[0] = SUBACK;
  writeLength(frame, remaining);
  frame.writeUInt16BE(packetId, start);
  for (const [index, code] of codes.entries()) frame[start + 2 + index] = code;
  return frame;
}

/** UNSUBACK [MQTT-3.10.4-4]. */
export function encodeUnsuback(packetId: number): Buffer {
  return Buffer.from([UNSUBACK, 2, packetId >> 8, packetId & 0xff]);
}

function lengthBytes(length: number): number {
  return length < 0x80 ? 1 : length < 0x4000 ? 2 : length < 0x20_0000 ? 3 : 4;
}

/** Remaining length of the fixed header, seven bits in a byte [MQTT-2.2.3]. */
function writeLength(frame: Buffer, length: number): void {
  let rest = length;
  let at = 1;
  while (rest >= 0x80) {
    frame[at] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
    at += 1;
  }
  frame[at] = rest;
}

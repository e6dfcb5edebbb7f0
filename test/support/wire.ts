/** A piece of a packet: bytes as they are, or text, which gets its length of two bytes in front [MQTT-1.5.3]. */
export type Piece = Uint8Array | readonly number[] | string;

/** A packet from the first byte of its fixed header and its pieces; the remaining length is right. */
export function frame(first: number, ...pieces: Piece[]): Buffer {
  const body = Buffer.concat(pieces.map(bytesOf));
  return Buffer.concat([fixedHeader(first, body.length), body]);
}

/** The fixed header of a packet that claims `length` bytes [MQTT-2.2.3]. */
export function fixedHeader(first: number, length: number): Buffer {
  const bytes = [first];
  let rest = length;
  do {
    bytes.push((rest % 128) | (rest >= 128 ? 0x80 : 0));
    rest = Math.floor(rest / 128);
  } while (rest > 0);
  return Buffer.from(bytes);
}

/** Text with its length of two bytes; of bytes, as they are, where they are no valid text. */
export function lengthPrefixed(content: string | Uint8Array): Buffer {
  const bytes = typeof content === 'string' ? Buffer.from(content, 'utf8') : Buffer.from(content);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** A packet identifier, or any number of two bytes. */
export function twoBytes(value: number): Buffer {
  return Buffer.from([value >> 8, value & 0xff]);
}

/** What a CONNECT is made of; the payload has to fit the flags only when it is to be valid. */
export interface ConnectParts {
  readonly name?: string | Uint8Array;
  readonly level?: number;
  readonly flags?: number;
  readonly keepAliveS?: number;
  readonly payload: readonly Piece[];
}

/** A CONNECT, valid or not. */
export function connectFrame(parts: ConnectParts): Buffer {
  const { name = 'MQTT', level = 4, flags = 0x02, keepAliveS = 60, payload } = parts;
  const head = [lengthPrefixed(name), [level, flags], twoBytes(keepAliveS)];
  return frame(0x10, ...head, ...payload);
}

/** A PUBLISH, valid or not. `flags` are the lower four bits of the first byte: DUP, QoS, RETAIN. */
export function publishFrame(
  flags: number,
  topic: string | Uint8Array,
  packetId: number | null,
  payload: Uint8Array = new Uint8Array(0),
): Buffer {
  const id = packetId === null ? [] : twoBytes(packetId);
  return frame(0x30 | flags, lengthPrefixed(topic), id, payload);
}

function bytesOf(piece: Piece): Buffer {
  return typeof piece === 'string' ? lengthPrefixed(piece) : Buffer.from(piece);
}

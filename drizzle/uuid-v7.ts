import { randomFillSync } from 'node:crypto';

/**
 * A UUID of version 7 (RFC 9562): its text sorts by `nowMs`, milliseconds since 1970, and within one
 * millisecond by `micros`, 0 to 999, where given (method 3); the rest is random.
 */
export function makeUuidV7(nowMs: number, micros?: number): string {
  const bytes = Buffer.alloc(16);
  bytes.writeUIntBE(nowMs, 0, 6);
  randomFillSync(bytes, 6);
  if (micros !== undefined) bytes.writeUInt16BE(Math.floor((micros * 4096) / 1000), 6);
  return format(bytes);
}

/**
 * A UUID of version 7 that is the same each time it is made of the same microsecond since 1970 and the
 * same number, a whole one below 2^32. Not random: for ids that are no secret and must not change when
 * their row is written again.
 */
export function fixedUuidV7(micros: number, number: number): string {
  const bytes = Buffer.alloc(16);
  bytes.writeUIntBE(Math.floor(micros / 1000), 0, 6);
  bytes.writeUInt16BE(Math.floor(((micros % 1000) * 4096) / 1000), 6);
  bytes.writeUInt32BE(number, 12);
  return format(bytes);
}

function format(bytes: Buffer): string {
  bytes[6] = 0x70 | ((bytes[6] ?? 0) & 0x0f);
  bytes[8] = 0x80 | ((bytes[8] ?? 0) & 0x3f);
  const hex = bytes.toString('hex');
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    hex.slice(12, 16),
    hex.slice(16, 20),
    hex.slice(20),
  ].join('-');
}

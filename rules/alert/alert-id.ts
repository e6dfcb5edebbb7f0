import { createHash } from 'node:crypto';

/**
 * The id of the alert of one rule, device and group key that became active at a time. A UUID of version
 * 8 [RFC 9562, 5.8] that sorts by that time as those of version 7 do: 48 bits of milliseconds, the rest
 * SHA-256 of the four. Whoever evaluates the same readings makes the same id, so that what is written
 * twice is written once.
 * @param activeAtMicros event time; before 1970 the id sorts as of 1970.
 */
export function alertIdOf(
  ruleId: number,
  deviceId: number,
  groupKey: string,
  activeAtMicros: number,
): string {
  const digest = createHash('sha256')
    .update(`${ruleId} ${deviceId} ${activeAtMicros} ${groupKey}`)
    .digest();
  digest.writeUIntBE(Math.max(Math.floor(activeAtMicros / 1000), 0) % 2 ** 48, 0, 6);
  digest.writeUInt8(((digest[6] ?? 0) & 0x0f) | 0x80, 6);
  digest.writeUInt8(((digest[8] ?? 0) & 0x3f) | 0x80, 8);
  const hex = digest.toString('hex', 0, 16);
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    hex.slice(12, 16),
    hex.slice(16, 20),
    hex.slice(20),
  ].join('-');
}

import { createHash } from 'node:crypto';
import * as zlib from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { makeKey, parseKey, secretHash, type KeyKind } from '../../firmware-protocol/keys.ts';

const BASE62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const kinds: KeyKind[] = ['device', 'admin', 'integrator', 'claim'];

function seeded(seed: number): (bytes: number) => Uint8Array {
  let state = seed | 1;
  return (bytes) =>
    Uint8Array.from({ length: bytes }, () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
      return state >>> 24;
    });
}

describe('keys', () => {
  it('has 46 characters: prefix, public id, secret and checksum', () => {
    for (const [kind, prefix] of [
      ['device', 'pbd_'],
      ['admin', 'pba_'],
      ['integrator', 'pbi_'],
      ['claim', 'pbc_'],
    ] as const) {
      const made = makeKey(kind);
      expect(made.key).toMatch(/^pb[daic]_[0-9A-Za-z]{8}_[0-9A-Za-z]{33}$/);
      expect(made.key).toHaveLength(46);
      expect(made.key.startsWith(prefix)).toBe(true);
      expect(made.key.slice(4, 12)).toBe(made.publicId);
      expect(made.key.slice(13, 40)).toBe(made.secret);
    }
  });

  it('takes apart what it made, whatever the random bytes', () => {
    fc.assert(
      fc.property(fc.constantFrom(...kinds), fc.integer(), (kind, seed) => {
        const { key, ...parts } = makeKey(kind, seeded(seed));
        expect(parseKey(key)).toEqual(parts);
      }),
      { numRuns: 500 },
    );
  });

  it('refuses every key with one wrong character', () => {
    const { key } = makeKey('device', seeded(7));
    for (let at = 0; at < key.length; at += 1) {
      for (const char of `${BASE62}_- `) {
        if (char === key[at]) continue;
        expect(parseKey(key.slice(0, at) + char + key.slice(at + 1))).toBeNull();
      }
    }
  });

  it('refuses a missing, an added and two swapped characters', () => {
    const { key } = makeKey('admin', seeded(11));
    for (let at = 0; at < key.length; at += 1) {
      expect(parseKey(key.slice(0, at) + key.slice(at + 1))).toBeNull();
      expect(parseKey(`${key.slice(0, at)}A${key.slice(at)}`)).toBeNull();
      const [left, right] = [key.charAt(at), key.charAt(at + 1)];
      if (left === right || right === '') continue;
      expect(parseKey(key.slice(0, at) + right + left + key.slice(at + 2))).toBeNull();
    }
    for (const text of ['', ' ', key + '\n', ` ${key}`, 'pbd_', key.toLowerCase(), `${key}\0`]) {
      expect(parseKey(text)).toBeNull();
    }
  });

  it('ends with the CRC-32 of all before it, in six digits of base 62', () => {
    expect(makeKey('device', () => new Uint8Array(27)).key).toBe(
      'pbd_00000000_000000000000000000000000000' + checksumOf('pbd_00000000_' + '0'.repeat(27)),
    );
    for (let seed = 0; seed < 200; seed += 1) {
      const { key } = makeKey('device', seeded(seed));
      expect(key.slice(40)).toBe(checksumOf(key.slice(0, 40)));
    }
  });

  it('draws every character equally often', () => {
    const allBytes = Uint8Array.from({ length: 256 }, (_, byte) => byte);
    const drawn =
      makeKey('device', () => allBytes).publicId + makeKey('device', () => allBytes).secret;
    expect(drawn.slice(0, 8)).toBe('01234567');
    const counts = new Map<string, number>();
    for (let round = 0; round < 4000; round += 1) {
      for (const char of makeKey('device').secret) counts.set(char, (counts.get(char) ?? 0) + 1);
    }
    const expected = (4000 * 27) / 62;
    const chiSquare = [...BASE62].reduce(
      (sum, char) => sum + ((counts.get(char) ?? 0) - expected) ** 2 / expected,
      0,
    );
    // 61 degrees of freedom: above 140 once in 10^7 runs; a plain modulo gives over 600.
    expect(chiSquare).toBeLessThan(140);
  });

  it('stores SHA-256 of the secret alone', () => {
    const { secret } = makeKey('device');
    expect(secretHash(secret)).toEqual(createHash('sha256').update(secret, 'ascii').digest());
    expect(secretHash(secret)).toHaveLength(32);
  });
});

/** By zlib where Node.js has it, else bit by bit. */
function checksumOf(body: string): string {
  const own = 'crc32' in zlib ? zlib.crc32(body) : bitwiseCrc32(body);
  let rest = BigInt(own >>> 0);
  let text = '';
  for (let place = 0; place < 6; place += 1) {
    text = BASE62.charAt(Number(rest % 62n)) + text;
    rest /= 62n;
  }
  return text;
}

function bitwiseCrc32(body: string): number {
  let crc = 0xffff_ffff;
  for (const byte of Buffer.from(body)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb8_8320 : crc >>> 1;
  }
  return ~crc;
}

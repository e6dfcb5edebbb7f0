import { createHash, randomBytes } from 'node:crypto';

/** How the key of each kind begins; an underscore follows. */
export const KEY_PREFIXES = {
  device: 'pbd',
  admin: 'pba',
  integrator: 'pbi',
  claim: 'pbc',
} as const;
const KINDS = { pbd: 'device', pba: 'admin', pbi: 'integrator', pbc: 'claim' } as const;
const BASE62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const PUBLIC_ID_CHARS = 8;
/** 27 characters of base62 are 160.7 bits, enough for a plain hash at rest. */
const SECRET_CHARS = 27;
const CHECKSUM_CHARS = 6;
/** Characters of a key: prefix, public id, secret and checksum, with two underscores. */
export const KEY_CHARS = 3 + 1 + PUBLIC_ID_CHARS + 1 + SECRET_CHARS + CHECKSUM_CHARS;
const KEY = /^(pb[daic])_([0-9A-Za-z]{8})_([0-9A-Za-z]{27})([0-9A-Za-z]{6})$/;
const CRC_TABLE = crcTable();

/** Whom a key is for. Its prefix (`pbd_`, `pba_`, `pbi_`, `pbc_`) shows it. */
export type KeyKind = keyof typeof KEY_PREFIXES;

/** What a well-formed key is made of. */
export interface ParsedKey {
  kind: KeyKind;
  /** 8 characters of base62. Finds the key in the registry; may be logged. */
  publicId: string;
  /** 27 characters of base62. Never stored or logged; see {@link secretHash}. */
  secret: string;
}

/** A new key: the text to hand out once, and the parts of it to keep. */
export interface MadeKey extends ParsedKey {
  /** 46 characters: prefix, public id, secret and CRC-32. */
  key: string;
}

/**
 * Makes a key. Each character is drawn without bias.
 * @param random gives that many random bytes; the system's generator unless a test says otherwise.
 */
export function makeKey(
  kind: KeyKind,
  random: (bytes: number) => Uint8Array = randomBytes,
): MadeKey {
  const publicId = randomBase62(PUBLIC_ID_CHARS, random);
  const secret = randomBase62(SECRET_CHARS, random);
  const body = `${KEY_PREFIXES[kind]}_${publicId}_${secret}`;
  return { kind, publicId, secret, key: body + checksum(body) };
}

/**
 * Takes a key apart. It says nothing of whether the key is known.
 * @returns null when the text is not a key or its checksum is wrong, that is, mistyped.
 */
export function parseKey(text: string): ParsedKey | null {
  const [, prefix, publicId, secret, given] = KEY.exec(text) ?? [];
  if (prefix === undefined || publicId === undefined || secret === undefined) return null;
  if (checksum(`${prefix}_${publicId}_${secret}`) !== given) return null;
  return { kind: KINDS[prefix as keyof typeof KINDS], publicId, secret };
}

/** The part of a text that may be logged when it looks like a key, mistyped or not; null when it does not. */
export function publicPartOf(text: string): string | null {
  return /^pb[a-z]_([0-9A-Za-z]{8})_/.exec(text)?.[1] ?? null;
}

/** What stands for a client certificate where others have a key id; no key's public part is like it. */
export function certificateId(fingerprint: string): string {
  return `${CERTIFICATE_PREFIX}${fingerprint.slice(0, 16)}`;
}

/** Whether a key id stands for a client certificate. */
export function isCertificateId(keyId: string): boolean {
  return keyId.startsWith(CERTIFICATE_PREFIX);
}

const CERTIFICATE_PREFIX = 'x509:';

/**
 * SHA-256 of the 27-character secret of a key: what the registry stores (32 bytes). A slow hash would
 * add nothing to 160 random bits and would make a storm of reconnects a denial of service.
 */
export function secretHash(secret: string): Buffer {
  return createHash('sha256').update(secret).digest();
}

function randomBase62(length: number, random: (bytes: number) => Uint8Array): string {
  let text = '';
  while (text.length < length) {
    for (const byte of random(length)) {
      // 248 is the largest multiple of 62 in a byte; the rest would favour the first characters.
      if (byte < 248 && text.length < length) text += BASE62.charAt(byte % 62);
    }
  }
  return text;
}

function checksum(body: string): string {
  let rest = crc32(body);
  let text = '';
  for (let place = 0; place < CHECKSUM_CHARS; place += 1) {
    text = BASE62.charAt(rest % 62) + text;
    rest = Math.floor(rest / 62);
  }
  return text;
}

/** CRC-32 (IEEE 802.3) of ASCII text; node:zlib has it from Node.js 20.15 on only. */
function crc32(ascii: string): number {
  let crc = 0xffff_ffff;
  for (let at = 0; at < ascii.length; at += 1) {
    crc = (crc >>> 8) ^ (CRC_TABLE[(crc ^ ascii.charCodeAt(at)) & 0xff] ?? 0);
  }
  return (crc ^ 0xffff_ffff) >>> 0;
}

function crcTable(): Uint32Array {
  const table = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte += 1) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb8_8320 : crc >>> 1;
    table[byte] = crc;
  }
  return table;
}

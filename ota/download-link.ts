import { createHmac, timingSafeEqual } from 'node:crypto';

/** Longest path of a link with its query, in bytes. */
export const LINK_PATH_BYTES = 51;

const ID_BYTES = 16;
/** 128 bits of the code: short enough for a board with a buffer of 256 bytes. */
const CODE_BYTES = 16;
const BASE64URL_OF_16_BYTES = /^[A-Za-z0-9_-]{21}[AQgw]$/;

/**
 * The path of the link for an update: its id, and a code that only who knows the key can make. The update
 * says which device and which image it is for, and until when.
 */
export function makeLinkPath(key: Buffer, updateId: string): string {
  const id = Buffer.from(updateId.replaceAll('-', ''), 'hex');
  return `/fw/${id.toString('base64url')}?t=${codeOf(key, id).toString('base64url')}`;
}

/**
 * Reads a link.
 * @param name the part behind `/fw/`. @param code what `t` is.
 * @returns the id of the update; null when nobody with the key has made it.
 */
export function readLink(key: Buffer, name: string, code: string): string | null {
  if (!BASE64URL_OF_16_BYTES.test(name) || !BASE64URL_OF_16_BYTES.test(code)) return null;
  const id = Buffer.from(name, 'base64url');
  if (!timingSafeEqual(codeOf(key, id), Buffer.from(code, 'base64url'))) return null;
  const hex = id.toString('hex');
  const cuts = [0, 8, 12, 16, 20, 2 * ID_BYTES];
  return cuts
    .slice(1)
    .map((end, index) => hex.slice(cuts[index], end))
    .join('-');
}

function codeOf(key: Buffer, id: Buffer): Buffer {
  const purpose = 'firmware download 1\0';
  return createHmac('sha256', key).update(purpose).update(id).digest().subarray(0, CODE_BYTES);
}

import { createPublicKey, verify, type KeyObject } from 'node:crypto';
import { promisify } from 'node:util';
import { SignerInvalidError } from '../ota-errors.ts';

/** Bytes of an Ed25519 public key (RFC 8032). */
export const PUBLIC_KEY_BYTES = 32;
/** Bytes of an Ed25519 signature. */
export const SIGNATURE_BYTES = 64;

const verifyLater = promisify(verify);
/** Anything is signed by the key whose point has no order: half of such a signature is the point itself. */
const SMALL_ORDER_PROBES = 64;

/**
 * Reads the public key of a signer.
 * @param text PEM (`BEGIN PUBLIC KEY`), or its 32 bytes in base64.
 * @throws {SignerInvalidError}
 */
export function readPublicKey(text: string): Buffer {
  if (text.includes('PRIVATE KEY')) {
    throw new SignerInvalidError(
      'this is a private key, which should not have left its place; make a new pair, and send the public one',
    );
  }
  const raw = text.includes('-----BEGIN') ? rawOf(text) : fromBase64(text.trim());
  if (raw?.length !== PUBLIC_KEY_BYTES) {
    throw new SignerInvalidError('must be an Ed25519 public key: PEM, or its 32 bytes in base64');
  }
  assertStrong(raw);
  return raw;
}

/** Reads base64 with either alphabet, padded or not; null when it is none. */
export function fromBase64(text: string): Buffer | null {
  // A plus in a query that was not escaped arrives as a space.
  const plain = text.replaceAll(/[ +]/g, '-').replaceAll('/', '_').replace(/=+$/, '');
  return /^[A-Za-z0-9_-]+$/.test(plain) ? Buffer.from(plain, 'base64url') : null;
}

/** Whether a signature of these bytes is by the holder of a key. Does not hold up the event loop. */
export async function isSignedBy(
  publicKey: Buffer,
  bytes: Buffer,
  signature: Buffer,
): Promise<boolean> {
  if (signature.length !== SIGNATURE_BYTES) return false;
  return verifyLater(null, bytes, keyOf(publicKey), signature);
}

function rawOf(pem: string): Buffer | null {
  try {
    const key = createPublicKey(pem);
    if (key.asymmetricKeyType !== 'ed25519') return null;
    return Buffer.from(key.export({ format: 'jwk' }).x ?? '', 'base64url');
  } catch {
    return null;
  }
}

function keyOf(raw: Buffer): KeyObject {
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: raw.toString('base64url') };
  return createPublicKey({ key: jwk, format: 'jwk' });
}

/**
 * Refuses keys under which the signature "identity, 0" holds for messages that nobody signed, which are
 * the few points of small order.
 */
function assertStrong(raw: Buffer): void {
  const key = keyOf(raw);
  const forged = Buffer.alloc(SIGNATURE_BYTES);
  forged[0] = 1;
  for (let probe = 0; probe < SMALL_ORDER_PROBES; probe += 1) {
    if (!verify(null, Buffer.from([probe]), key, forged)) continue;
    throw new SignerInvalidError('the key is one that everybody can sign with');
  }
}

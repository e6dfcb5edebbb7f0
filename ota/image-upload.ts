import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';
import { AppError, RequestInvalidError } from '../errors.ts';

/** Bounds of an upload. */
export interface UploadBounds {
  readonly bytesMax: number;
  /** Longest wait for the next bytes. */
  readonly idleMs: number;
  /** Longest time in all. */
  readonly wholeMs: number;
}

/** An image that was uploaded. */
export interface UploadedImage {
  readonly image: Buffer;
  /** SHA-256 of it. */
  readonly sha256: Buffer;
}

/**
 * Reads an image to its end. It is held in memory: Ed25519 signs all of it at once, and so it is checked.
 * @throws {RequestInvalidError} 413 too large, 408 too slow, 400 cut off.
 */
export async function readImage(body: Readable, bounds: UploadBounds): Promise<UploadedImage> {
  // Leaving early must not end the connection: an answer is to go over it.
  const chunks = body.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>;
  const endsAt = performance.now() + bounds.wholeMs;
  const hash = createHash('sha256');
  const parts: Buffer[] = [];
  let bytes = 0;
  try {
    for (;;) {
      const waitMs = Math.min(bounds.idleMs, endsAt - performance.now());
      const chunk = await nextWithin(chunks, waitMs);
      if (chunk === null) return { image: Buffer.concat(parts, bytes), sha256: hash.digest() };
      bytes += chunk.length;
      if (bytes > bounds.bytesMax) throw tooLarge(bounds.bytesMax);
      hash.update(chunk);
      parts.push(chunk);
    }
  } finally {
    // Not to be waited for: it ends behind a read that may never come back.
    chunks.return?.().catch(() => undefined);
  }
}

/** What an image of more bytes than that is answered with. */
export function tooLarge(bytesMax: number): RequestInvalidError {
  const fault = `the image is larger than ${bytesMax} bytes, which is FIRMWARE_BYTES_MAX`;
  return new RequestInvalidError([fault], 413);
}

async function nextWithin(chunks: AsyncIterator<Buffer>, waitMs: number): Promise<Buffer | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const fault = new RequestInvalidError(['the image came too slowly'], 408);
    timer = setTimeout(() => reject(fault), Math.max(0, waitMs));
  });
  try {
    const { done, value } = await Promise.race([chunks.next(), late]);
    return done === true ? null : value;
  } catch (error) {
    if (error instanceof AppError) throw error;
    throw new RequestInvalidError(['the image was cut off'], 400, error);
  } finally {
    clearTimeout(timer);
  }
}

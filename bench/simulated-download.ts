import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';

/** How a simulated board fetches its image. */
export interface FetchOptions {
  readonly url: string;
  /** Breaks the first connection off behind so many bytes; null: does not. */
  readonly breakOffBytes: number | null;
  /** Told of each piece: percent of the image. */
  readonly onProgress: (percent: number) => void;
  /** The link has expired: asks for it anew. */
  readonly onExpired: () => Promise<void>;
  readonly signal: AbortSignal;
}

/** What came of it. */
export interface FetchedImage {
  readonly bytes: Buffer;
  /** Requests that it took; more than one when the connection broke. */
  readonly requests: number;
}

const ATTEMPTS_MAX = 20;
const RETRY_MS = 50;

/**
 * Fetches an image as firmware does: piece by piece into flash, goes on behind what it has when the
 * connection breaks, and checks its SHA-256.
 * @throws {Error} when it cannot be had, or is not what its header says.
 */
export async function fetchImage(options: FetchOptions): Promise<FetchedImage> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  let etag: string | null = null;
  for (let requests = 1; requests <= ATTEMPTS_MAX; requests += 1) {
    const breakAt = requests === 1 ? options.breakOffBytes : null;
    const response: Response | null = await ask(options, bytes, etag);
    if (response === null) continue;
    if (response.status === 200) {
      pieces.length = 0;
      bytes = 0;
    }
    etag = response.headers.get('etag');
    const size = Number(response.headers.get('x-firmware-size'));
    await takeBody(response, breakAt, (piece) => {
      pieces.push(piece);
      bytes += piece.length;
      options.onProgress(Math.floor((100 * bytes) / size));
    });
    if (bytes < size) continue;
    const image = Buffer.concat(pieces);
    const digest = createHash('sha256').update(image).digest('hex');
    if (digest !== response.headers.get('x-firmware-sha256')) throw new Error('sha256');
    return { bytes: image, requests };
  }
  throw new Error('download');
}

/** Null: ask again. */
async function ask(
  { url, signal, onExpired }: FetchOptions,
  bytes: number,
  etag: string | null,
): Promise<Response | null> {
  const resume = etag === null ? {} : { 'if-range': etag };
  const headers = bytes === 0 ? {} : { range: `bytes=${bytes}-`, ...resume };
  const response = await fetch(url, { headers, signal }).catch((error: unknown) => {
    if (signal.aborted) throw error;
    return null;
  });
  if (response?.ok === true) return response;
  await response?.body?.cancel();
  if (response?.status === 403) await onExpired();
  const waitS = Number(response?.headers.get('retry-after') ?? 0);
  await delay(waitS === 0 ? RETRY_MS : waitS * 1000, undefined, { signal });
  return null;
}

/** Resolves at the end, or when the connection broke. */
async function takeBody(
  { body }: Response,
  breakAt: number | null,
  take: (piece: Buffer) => void,
): Promise<void> {
  let bytes = 0;
  const reader = body?.getReader();
  if (reader === undefined) return;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const piece = Buffer.from(value);
      take(piece);
      bytes += piece.length;
      if (breakAt === null || bytes < breakAt) continue;
      await reader.cancel();
      return;
    }
  } catch {
    // What has come is kept; the next request goes on behind it.
  }
}

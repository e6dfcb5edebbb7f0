import type { Readable } from 'node:stream';
import { AppError, ImportInterruptedError, RequestInvalidError } from '../../errors.ts';

/** So many bytes have to come in each {@link BodyReader} `idleMs` that it waits for them. */
const PACE_BYTES = 65_536;

/** Takes a body chunk by chunk: nothing is read from the socket that was not asked for. */
export class BodyReader {
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #idleMs: number;
  #putBack: Buffer | null = null;
  #stopReason: string | null = null;
  #endRead: ((cause: Error) => void) | null = null;
  /** Since the last 64 KiB were full. */
  #waitedMs = 0;
  #bytes = 0;

  /**
   * @param idleMs longest wait for the next 64 KiB or the end, the time in which nothing was asked for not
   * counted: who sends byte by byte would hold a place for days.
   */
  constructor(body: Readable, idleMs: number) {
    // Leaving early must not end the connection: an answer is to go over it.
    this.#chunks = body.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>;
    this.#idleMs = idleMs;
  }

  /**
   * The next chunk; null at the end.
   * @throws {ImportInterruptedError} when the connection was cut before the end, or it was stopped.
   * @throws {RequestInvalidError} 408, when too little came for too long.
   */
  async next(): Promise<Buffer | null> {
    const held = this.#putBack;
    this.#putBack = null;
    return held ?? (await this.#read());
  }

  /** The first bytes, `bytes` of them or all there are; what was read beyond comes next. */
  async head(bytes: number): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let read = 0;
    while (read < bytes) {
      const chunk = await this.next();
      if (chunk === null) break;
      chunks.push(chunk);
      read += chunk.length;
    }
    const all = Buffer.concat(chunks);
    if (read > bytes) this.#putBack = all.subarray(bytes);
    return all.subarray(0, bytes);
  }

  /** Ends the wait for the next chunk, now and from now on. */
  stop(reason: string): void {
    this.#stopReason = reason;
    this.#endRead?.(new ImportInterruptedError(reason));
  }

  /** Reads no more. Not to be waited for: it ends behind a read that may never come back. */
  close(): void {
    this.#chunks.return?.().catch(() => undefined);
  }

  async #read(): Promise<Buffer | null> {
    if (this.#stopReason !== null) throw new ImportInterruptedError(this.#stopReason);
    let timer: NodeJS.Timeout | undefined;
    const startedAt = performance.now();
    const late = new Promise<never>((_, reject) => {
      this.#endRead = reject;
      timer = setTimeout(() => {
        const fault = `${this.#bytes} bytes of the file came in ${this.#idleMs / 1000} s`;
        reject(new RequestInvalidError([fault], 408));
      }, this.#idleMs - this.#waitedMs);
    });
    try {
      const { done, value } = await Promise.race([this.#chunks.next(), late]);
      if (done === true) return null;
      this.#note(value.length, performance.now() - startedAt);
      return value;
    } catch (error) {
      if (error instanceof AppError) throw error;
      throw new ImportInterruptedError('the connection was cut');
    } finally {
      clearTimeout(timer);
      this.#endRead = null;
    }
  }

  #note(bytes: number, waitedMs: number): void {
    this.#bytes += bytes;
    this.#waitedMs += waitedMs;
    if (this.#bytes < PACE_BYTES) return;
    this.#bytes = 0;
    this.#waitedMs = 0;
  }
}

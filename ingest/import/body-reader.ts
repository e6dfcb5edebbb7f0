import type { Readable } from 'node:stream';
import { ImportInterruptedError, RequestInvalidError } from '../../errors.ts';

/** Takes a body chunk by chunk: nothing is read from the socket that was not asked for. */
export class BodyReader {
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #idleMs: number;
  #putBack: Buffer | null = null;

  /** @param idleMs longest wait for the next chunk. */
  constructor(body: Readable, idleMs: number) {
    // Leaving early must not end the connection: an answer is to go over it.
    this.#chunks = body.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>;
    this.#idleMs = idleMs;
  }

  /**
   * The next chunk; null at the end.
   * @throws {ImportInterruptedError} when the connection was cut before the end.
   * @throws {RequestInvalidError} 408, when nothing came for too long.
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

  /** Reads no more. Not to be waited for: it ends behind a read that may never come back. */
  close(): void {
    this.#chunks.return?.().catch(() => undefined);
  }

  async #read(): Promise<Buffer | null> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        const fault = `nothing of the file came for ${this.#idleMs / 1000} s`;
        reject(new RequestInvalidError([fault], 408));
      }, this.#idleMs);
    });
    try {
      const { done, value } = await Promise.race([this.#chunks.next(), late]);
      return done === true ? null : value;
    } catch (error) {
      if (error instanceof RequestInvalidError) throw error;
      throw new ImportInterruptedError('the connection was cut');
    } finally {
      clearTimeout(timer);
    }
  }
}

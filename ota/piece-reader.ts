import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { guardStore } from '../drizzle/sqlstate.ts';
import { PART_BYTES } from './firmware-repository.ts';

/** Most bytes that are read at a time: so much of the event loop's time a download takes in one piece. */
export const PIECE_BYTES_MAX = 65_536;

/**
 * Reads images for all downloads together: one piece after the other, in the order in which they are asked
 * for, and no faster than the bound. So downloads never take more than one connection of the database, and
 * a slow device holds up nobody.
 */
export class PieceReader {
  readonly #pool: pg.Pool;
  readonly #bytesPerS: number;
  #last: Promise<unknown> = Promise.resolve();
  /** When the next piece may be read, on the clock of `performance`. */
  #freeAtMs = 0;

  /** @param bytesPerS of all downloads; 0: no bound. */
  constructor(pool: pg.Pool, bytesPerS: number) {
    this.#pool = pool;
    this.#bytesPerS = bytesPerS;
  }

  /**
   * Bytes of an image from `start` on: at least one, and at most up to `end`. Null when the image is gone,
   * or the key that signed it was revoked.
   * @param isWanted asked when it is its turn. @throws {StoreUnavailableError}
   */
  read(
    firmwareId: string,
    start: number,
    end: number,
    isWanted: () => boolean,
  ): Promise<Buffer | null> {
    const piece = this.#last.then(async () => {
      if (!isWanted()) return null;
      await this.#pace();
      return this.#readNow(firmwareId, start, end);
    });
    this.#last = piece.catch(() => undefined);
    return piece;
  }

  async #pace(): Promise<void> {
    const waitMs = this.#freeAtMs - performance.now();
    // Timers are of whole ms: shorter waits are made up for by the next.
    if (waitMs >= 1) await delay(waitMs);
  }

  async #readNow(firmwareId: string, start: number, end: number): Promise<Buffer | null> {
    const part = Math.floor(start / PART_BYTES);
    const offset = start - part * PART_BYTES;
    const bytes = Math.min(PIECE_BYTES_MAX, end - start, PART_BYTES - offset);
    const { rows } = await guardStore(
      this.#pool.query<{ piece: Buffer }>(
        `SELECT substring(content FROM $3 FOR $4) AS piece
         FROM firmware_part
         JOIN firmware_image AS image USING (organization_id, firmware_id)
         LEFT JOIN firmware_signer AS signer USING (organization_id, signer_id)
         WHERE firmware_id = $1 AND part = $2 AND signer.revoked_at IS NULL`,
        [firmwareId, part, offset + 1, bytes],
      ),
    );
    const piece = rows[0]?.piece ?? null;
    if (piece?.length !== bytes) return null;
    if (this.#bytesPerS > 0) {
      const nowMs = performance.now();
      this.#freeAtMs = Math.max(nowMs, this.#freeAtMs) + (bytes * 1000) / this.#bytesPerS;
    }
    return piece;
  }
}

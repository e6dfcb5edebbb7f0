import { Readable } from 'node:stream';
import type { ByteRange } from './byte-range.ts';
import { PIECE_BYTES_MAX, type PieceReader } from './piece-reader.ts';

/** What a download reads, and who is told of it. */
export interface DownloadSource {
  readonly firmwareId: string;
  readonly range: ByteRange;
  readonly reader: PieceReader;
  /** So many bytes more were handed on. */
  readonly onBytes: (bytes: number) => void;
  /** It has ended, at its end or before. @param position first byte that was not handed on */
  readonly onClose: (position: number) => void;
}

/** Some bytes of an image as a stream that reads the next piece when the last one has gone out. */
export class DownloadStream extends Readable {
  readonly #source: DownloadSource;
  #position: number;

  constructor(source: DownloadSource) {
    super({ highWaterMark: PIECE_BYTES_MAX });
    this.#source = source;
    this.#position = source.range.start;
  }

  override _read(): void {
    const { firmwareId, range, reader, onBytes } = this.#source;
    if (this.#position >= range.end) {
      this.push(null);
      return;
    }
    reader
      .read(firmwareId, this.#position, range.end, () => !this.destroyed)
      .then(
        (piece) => {
          if (this.destroyed) return;
          if (piece === null) {
            this.destroy(new Error('the image is gone'));
            return;
          }
          this.#position += piece.length;
          onBytes(piece.length);
          this.push(piece);
        },
        (error: unknown) => {
          this.destroy(error instanceof Error ? error : new Error('the image cannot be read'));
        },
      );
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#source.onClose(this.#position);
    done(error);
  }
}

import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import type pg from 'pg';
import type { Connection, Submittable } from 'pg';

/** What `pg`'s connection offers beyond its type declarations. */
interface CopyConnection extends Connection {
  readonly stream: Socket;
  sendCopyFromChunk(chunk: Buffer): void;
  endCopyFrom(): void;
}

const BLOCK_BYTES = 262_144;

/**
 * The bytes of one `COPY … TO STDOUT`, in blocks of up to 256 KiB or one row. The server waits while
 * nobody reads. Starts when it is given to `client.query`; its client can be used again after the end.
 */
export class CopyOut extends Readable implements Submittable {
  /** Has to be there: `pg` puts a caller's callback in its place otherwise. */
  readonly callback = (): void => undefined;
  readonly #sql: string;
  #connection: CopyConnection | null = null;
  #block = Buffer.allocUnsafe(BLOCK_BYTES);
  #used = 0;
  #rows = 0;

  constructor(sql: string) {
    super({ highWaterMark: 2 * BLOCK_BYTES });
    this.#sql = sql;
  }

  /** Rows copied, once the stream has ended. */
  get rows(): number {
    return this.#rows;
  }

  submit(connection: Connection): void {
    this.#connection = connection as CopyConnection;
    connection.query(this.#sql);
  }

  handleCopyData({ chunk }: { chunk: Buffer }): void {
    if (chunk.length > BLOCK_BYTES - this.#used) this.#flush();
    if (chunk.length > BLOCK_BYTES) {
      // The parser of `pg` uses its memory again.
      this.#pass(Buffer.from(chunk));
    } else {
      this.#used += chunk.copy(this.#block, this.#used);
    }
  }

  handleCommandComplete({ text }: { text: string }): void {
    this.#rows = rowsOf(text);
  }

  handleReadyForQuery(): void {
    this.#flush();
    this.push(null);
    this.#connection?.stream.resume();
  }

  handleError(error: Error): void {
    this.destroy(error);
  }

  override _read(): void {
    this.#connection?.stream.resume();
  }

  #flush(): void {
    if (this.#used === 0) return;
    this.#pass(this.#block.subarray(0, this.#used));
    this.#block = Buffer.allocUnsafe(BLOCK_BYTES);
    this.#used = 0;
  }

  #pass(block: Buffer): void {
    if (!this.push(block)) this.#connection?.stream.pause();
  }
}

/** One `COPY … FROM STDIN` that is fed piece by piece; pieces may be cut anywhere. */
export interface CopyIn {
  /** Waits while the server is behind. @throws what the server says of rows sent before. */
  write(chunk: Buffer): Promise<void>;
  /** Ends the rows. @returns how many the server took. */
  end(): Promise<number>;
}

/** Begins a COPY. The client can do nothing else before its end; ending the client gives it up. */
export async function startCopyIn(client: pg.Client, sql: string): Promise<CopyIn> {
  const copy = new CopyInQuery(sql);
  client.query(copy);
  const connection = await copy.ready;
  const { stream } = connection;
  return {
    async write(chunk) {
      copy.assertGoingOn();
      connection.sendCopyFromChunk(chunk);
      if (stream.writableNeedDrain) await copy.waitForDrain(stream);
    },
    end() {
      connection.endCopyFrom();
      return copy.ended;
    },
  };
}

class CopyInQuery implements Submittable {
  readonly callback = (): void => undefined;
  readonly ready: Promise<CopyConnection>;
  readonly ended: Promise<number>;
  readonly #sql: string;
  #begin!: (connection: CopyConnection) => void;
  #finish!: (rows: number) => void;
  #reject!: (error: Error) => void;
  #rows = 0;
  #error: Error | null = null;
  #wake: (() => void) | null = null;

  constructor(sql: string) {
    this.#sql = sql;
    this.ended = new Promise((resolve, reject) => {
      this.#finish = resolve;
      this.#reject = reject;
    });
    this.ready = new Promise((resolve, reject) => {
      this.#begin = resolve;
      this.ended.catch(reject);
    });
  }

  assertGoingOn(): void {
    if (this.#error !== null) throw this.#error;
  }

  /** Ends with an error of the COPY too. No race against `ended`, which would remember each of them. */
  async waitForDrain(stream: Socket): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      stream.once('drain', resolve);
    });
    if (this.#wake !== null) stream.off('drain', this.#wake);
    this.#wake = null;
    this.assertGoingOn();
  }

  submit(connection: Connection): void {
    connection.query(this.#sql);
  }

  handleCopyInResponse(connection: Connection): void {
    this.#begin(connection as CopyConnection);
  }

  handleCommandComplete({ text }: { text: string }): void {
    this.#rows = rowsOf(text);
  }

  handleError(error: Error): void {
    this.#error = error;
    this.#reject(error);
    this.#wake?.();
  }

  handleReadyForQuery(): void {
    if (this.#error === null) this.#finish(this.#rows);
  }
}

/** `COPY 12`. */
function rowsOf(commandTag: string): number {
  return Number(commandTag.slice(commandTag.lastIndexOf(' ') + 1));
}

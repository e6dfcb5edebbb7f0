import type { Client, Connection, Submittable } from 'pg';
import { COPY_HEADER, COPY_TRAILER } from './copy-buffer.ts';

/** One prepared statement with its parameters, and the rows where it is a COPY … FROM STDIN. */
export interface Step {
  readonly name: string;
  readonly values: readonly (Buffer | string | null)[];
  /** Rows in binary COPY format without header and trailer. */
  readonly copyRows?: Buffer;
}

/**
 * Runs several prepared statements as one transaction in one write: Bind and Execute (and the rows of a
 * COPY) of each, then a single Sync, which commits. The server answers once. When a statement fails,
 * the server skips the rest up to Sync and rolls back: all of it is stored, or none (PostgreSQL
 * protocol, "Extended Query").
 * @returns the rows that each step changed, in order, after COMMIT. Rejects with the server's error, or
 * with the connection's; in the latter case the transaction may have been committed.
 */
export function commitSteps(client: Client, steps: readonly Step[]): Promise<number[]> {
  return submit(client, (wire) => {
    for (const step of steps) {
      wire.bind({ statement: step.name, values: step.values });
      wire.execute({});
      if (step.copyRows !== undefined) writeCopy(wire, step.copyRows);
    }
  });
}

/** Prepares statements by name on this connection, COPY included, which SQL's PREPARE cannot do. */
export async function prepareStatements(
  client: Client,
  statements: Readonly<Record<string, string>>,
): Promise<void> {
  await submit(client, (wire) => {
    for (const [name, text] of Object.entries(statements)) wire.parse({ name, text });
  });
}

/** What `pg`'s connection offers beyond its type declarations; pinned with the version of `pg`. */
interface Wire {
  readonly stream: { cork(): void; uncork(): void; write(bytes: Buffer): boolean };
  parse(query: { name: string; text: string }): void;
  bind(config: { statement: string; values: readonly unknown[] }): void;
  execute(config: object): void;
  sync(): void;
}

function submit(client: Client, send: (wire: Wire) => void): Promise<number[]> {
  return new Promise((resolve, reject) => {
    client.query(new Transaction(send, resolve, reject));
  });
}

/** The protocol between `pg`'s client and whatever it is to run. */
class Transaction implements Submittable {
  /** Has to be there: `pg` puts a caller's callback in its place otherwise. */
  readonly callback = (): void => undefined;
  readonly #send: (wire: Wire) => void;
  readonly #resolve: (rowCounts: number[]) => void;
  readonly #reject: (cause: unknown) => void;
  readonly #rowCounts: number[] = [];

  constructor(
    send: (wire: Wire) => void,
    resolve: (rowCounts: number[]) => void,
    reject: (cause: unknown) => void,
  ) {
    this.#send = send;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  submit(connection: Connection): void {
    const wire = connection as unknown as Wire;
    wire.stream.cork();
    this.#send(wire);
    wire.sync();
    wire.stream.uncork();
  }

  /** `INSERT 0 3`, `COPY 3`: the count stands last. */
  handleCommandComplete(message: { text: string }): void {
    this.#rowCounts.push(Number(message.text.slice(message.text.lastIndexOf(' ') + 1)));
  }

  handleReadyForQuery(): void {
    this.#resolve(this.#rowCounts);
  }

  handleError(error: Error): void {
    this.#reject(error);
  }

  /** The rows were sent without waiting for this. */
  handleCopyInResponse(): void {}

  handleRowDescription(): void {}

  handleDataRow(): void {}

  handlePortalSuspended(): void {}

  handleEmptyQuery(): void {}
}

const COPY_DONE = Buffer.from([0x63, 0, 0, 0, 4]);

function writeCopy(wire: Wire, rows: Buffer): void {
  const head = Buffer.allocUnsafe(5);
  head[0] = 0x64;
  head.writeInt32BE(4 + COPY_HEADER.length + rows.length + COPY_TRAILER.length, 1);
  wire.stream.write(head);
  wire.stream.write(COPY_HEADER);
  wire.stream.write(rows);
  wire.stream.write(COPY_TRAILER);
  wire.stream.write(COPY_DONE);
}

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { open, type RootDatabase } from 'lmdb';
import { checkPages } from './disk-check.ts';

/** What is put under a key, or null to remove it. */
export type Changes = ReadonlyMap<string, Buffer | null>;

/** Version of the tables and records; a store of another version is refused. */
const FORMAT = '1';
const FORMAT_KEY = 'format';
/** Changes of one transaction: its preparation holds the event loop for some 10 ms. */
const TRANSACTION_CHANGES_MAX = 20_000;
const SCAN_ROWS = 1024;

/** An ordered table of binary keys (as latin1 texts of at most 1 978 characters) in one LMDB file. */
export class DiskFile {
  readonly #database: RootDatabase<Buffer, string>;

  constructor(database: RootDatabase<Buffer, string>) {
    this.#database = database;
  }

  get(key: string): Buffer | undefined {
    return this.#database.get(key);
  }

  has(key: string): boolean {
    return this.#database.doesExist(key);
  }

  /** Number of keys that begin with `prefix`. */
  count(prefix: string): number {
    return this.#database.getKeysCount({ start: prefix, end: endOf(prefix) });
  }

  /**
   * The rows whose keys begin with `prefix`, in order. Read in portions: a slow reader keeps no old
   * pages alive, and sees changes made meanwhile behind its place.
   */
  *scan(prefix: string): Generator<{ key: string; value: Buffer }> {
    const end = endOf(prefix);
    for (let start = prefix; ;) {
      const rows = [...this.#database.getRange({ start, end, limit: SCAN_ROWS })];
      yield* rows;
      if (rows.length < SCAN_ROWS) return;
      start = `${rows.at(-1)?.key}\0`;
    }
  }

  /** Resolves when all changes are on disk, behind an fsync; after a rejection some of them may be. */
  async commit(changes: Changes): Promise<void> {
    let portion: [string, Buffer | null][] = [];
    for (const change of changes) {
      if (portion.push(change) < TRANSACTION_CHANGES_MAX) continue;
      await this.#transact(portion);
      portion = [];
    }
    if (portion.length > 0) await this.#transact(portion);
  }

  async close(): Promise<void> {
    await this.#database.close();
  }

  async #transact(changes: readonly [string, Buffer | null][]): Promise<void> {
    try {
      await this.#database.batch(() => {
        for (const [key, value] of changes) {
          if (value === null) void this.#database.remove(key);
          else void this.#database.put(key, value);
        }
      });
    } catch (cause) {
      throw await commitCause(cause);
    }
  }
}

/**
 * Opens the file in a folder, made when missing, after a look at all its pages.
 * @throws {Error} when there is something else in the folder, or its format is another.
 */
export function openDiskFile(folder: string): DiskFile {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  checkPages(join(folder, 'data.mdb'));
  const database = openDatabase(folder);
  const format = database.get(FORMAT_KEY)?.toString();
  if (format === undefined) database.putSync(FORMAT_KEY, Buffer.from(FORMAT));
  else if (format !== FORMAT) {
    void database.close();
    throw new Error(`its format is ${format}, this program's is ${FORMAT}`);
  }
  return new DiskFile(database);
}

function openDatabase(folder: string): RootDatabase<Buffer, string> {
  return open<Buffer, string>({
    path: folder,
    noSubdir: false,
    encoding: 'binary',
    keyEncoder: {
      writeKey: (key: string, target: Buffer, at: number) => at + target.write(key, at, 'latin1'),
      readKey: (source: Buffer, start: number, end: number) =>
        source.toString('latin1', start, end),
    },
    // A commit is then one fdatasync before its page of roots is written, and the promise waits for both.
    overlappingSync: false,
    // With it on, a failed commit also rejects a promise that nobody can reach.
    eventTurnBatching: false,
  });
}

/** First key behind all that begin with `prefix`: keys hold UTF-8, hashes and numbers, a table's letter first. */
function endOf(prefix: string): string {
  for (let length = prefix.length; length > 0; length -= 1) {
    const code = prefix.charCodeAt(length - 1);
    if (code < 255) return prefix.slice(0, length - 1) + String.fromCharCode(code + 1);
  }
  throw new RangeError('a scan needs the letter of a table');
}

/** lmdb says "commit failed" and hands the reason in a promise of its own, which must not stay unheard. */
async function commitCause(cause: unknown): Promise<unknown> {
  const { commitError } = cause as { commitError?: Promise<never> };
  if (commitError === undefined) return cause;
  return commitError.catch((reason: unknown) => reason);
}

import { createHash } from 'node:crypto';
import { BackupUnusableError } from '../../errors.ts';

/**
 * A backup is one gzip stream: a signature, then frames of one byte for the kind, four for the length
 * of what follows, and that. In this order: `header`; for each table or partition `table`, its rows in
 * PostgreSQL's binary COPY format cut into `rows`, `tableEnd`; `sequences`; `end`. A table comes after
 * those it refers to. All but `rows` are JSON.
 */
const SIGNATURE = Buffer.from('PUBACK BACKUP 1\n');
const FRAME_HEAD_BYTES = 5;
/** Far above a block of rows, a row, or a description. */
const FRAME_BYTES_MAX = 1_200_000_000;

/** What the whole backup is of. */
export interface BackupHeader {
  readonly createdAt: string;
  readonly serverVersion: string;
  /** Whether `reading` is a hypertable; otherwise it has partitions. */
  readonly hypertables: boolean;
  /** `when` of the migrations that made the schema, in order. */
  readonly migrations: readonly number[];
}

/** A column, with its type as `format_type` names it. */
export interface BackupColumn {
  readonly name: string;
  readonly type: string;
}

/** What the rows that follow belong to. */
export interface BackupTable {
  readonly table: string;
  readonly columns: readonly BackupColumn[];
  /** The partition that holds them; null for a table without partitions and for a hypertable. */
  readonly partition: BackupPartition | null;
}

/** As `CREATE TABLE … PARTITION OF` takes it. */
export interface BackupPartition {
  readonly name: string;
  /** `FOR VALUES FROM … TO …`, or `DEFAULT`. */
  readonly bound: string;
  /** Storage parameters, for example `fillfactor=70`. */
  readonly options: readonly string[];
}

/** Where a sequence stands. */
export interface BackupSequence {
  readonly name: string;
  readonly value: string;
  readonly isCalled: boolean;
}

/** What the whole must come to. */
export interface BackupEnd {
  readonly rows: Readonly<Record<string, number>>;
}

/** One piece of a backup. */
export type Frame =
  | { readonly kind: 'header'; readonly content: BackupHeader }
  | { readonly kind: 'table'; readonly content: BackupTable }
  | { readonly kind: 'rows'; readonly content: Buffer }
  | { readonly kind: 'tableEnd'; readonly content: { readonly rows: number } }
  | { readonly kind: 'sequences'; readonly content: readonly BackupSequence[] }
  | { readonly kind: 'end'; readonly content: BackupEnd };

const KINDS = { header: 1, table: 2, rows: 3, tableEnd: 4, sequences: 5, end: 6 } as const;
/** A SHA-256 of all that stands before it. Made and checked here, so that nobody else sees it. */
const CHECKSUM_KIND = 7;
const KIND_NAMES = new Map(Object.entries(KINDS).map(([name, code]) => [code as number, name]));

/** Turns frames into the bytes of a backup, before compression, and adds the checksum at the end. */
export async function* encodeFrames(frames: AsyncIterable<Frame>): AsyncGenerator<Buffer> {
  const hash = createHash('sha256');
  yield SIGNATURE;
  hash.update(SIGNATURE);
  for await (const { kind, content } of frames) {
    const body = Buffer.isBuffer(content) ? content : Buffer.from(JSON.stringify(content));
    const head = frameHead(KINDS[kind], body.length);
    hash.update(head).update(body);
    yield head;
    yield body;
  }
  const digest = hash.digest();
  yield frameHead(CHECKSUM_KIND, digest.length);
  yield digest;
}

/**
 * Reads a backup. Whoever uses the frames must undo what was done with them when this throws: the
 * checksum comes last.
 * @throws {BackupUnusableError} it is none, was cut off, or was changed.
 */
export async function* decodeFrames(bytes: AsyncIterable<Buffer>): AsyncGenerator<Frame> {
  const hash = createHash('sha256');
  const input = new ByteReader(bytes);
  const signature = await input.read(SIGNATURE.length);
  if (!signature.equals(SIGNATURE)) {
    throw new BackupUnusableError('it is no backup of Puback, or of another format');
  }
  hash.update(signature);
  let last: Frame['kind'] | null = null;
  for (;;) {
    const head = Buffer.from(await input.read(FRAME_HEAD_BYTES));
    const kind = head.readUInt8(0);
    const length = head.readUInt32BE(1);
    if (length > FRAME_BYTES_MAX) throw new BackupUnusableError('it was changed or damaged');
    const body = await input.read(length);
    if (kind === CHECKSUM_KIND) {
      if (!hash.digest().equals(body)) {
        throw new BackupUnusableError('its checksum is wrong: it was changed or damaged');
      }
      if (last !== 'end' || !(await input.isAtEnd())) {
        throw new BackupUnusableError('it does not end where it should');
      }
      return;
    }
    hash.update(head).update(body);
    const frame = frameOf(kind, body);
    last = frame.kind;
    yield frame;
  }
}

function frameHead(kind: number, length: number): Buffer {
  const head = Buffer.alloc(FRAME_HEAD_BYTES);
  head.writeUInt8(kind, 0);
  head.writeUInt32BE(length, 1);
  return head;
}

function frameOf(code: number, body: Buffer): Frame {
  const kind = KIND_NAMES.get(code);
  if (kind === undefined) throw new BackupUnusableError('it was changed or damaged');
  if (kind === 'rows') return { kind, content: body };
  try {
    return { kind, content: JSON.parse(body.toString()) } as Frame;
  } catch (error) {
    throw new BackupUnusableError('it was changed or damaged', error);
  }
}

/** Gives a stream of bytes in pieces of the lengths that are asked for. */
class ByteReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #left: Buffer = Buffer.alloc(0);

  constructor(bytes: AsyncIterable<Buffer>) {
    this.#chunks = bytes[Symbol.asyncIterator]();
  }

  /** @returns memory that the caller may keep. @throws {BackupUnusableError} at an early end. */
  async read(length: number): Promise<Buffer> {
    const parts = [this.#left];
    let have = this.#left.length;
    while (have < length) {
      const { value, done } = await this.#chunks.next();
      if (done === true) throw new BackupUnusableError('it is cut off');
      parts.push(value);
      have += value.length;
    }
    const all = parts.length === 1 ? this.#left : Buffer.concat(parts, have);
    this.#left = all.subarray(length);
    return all.subarray(0, length);
  }

  async isAtEnd(): Promise<boolean> {
    return this.#left.length === 0 && (await this.#chunks.next()).done === true;
  }
}

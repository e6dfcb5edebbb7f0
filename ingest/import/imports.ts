import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Registry } from 'prom-client';
import type { Page } from '../../drizzle/page.ts';
import type { TenantDatabase } from '../../drizzle/transaction.ts';
import {
  ImportBusyError,
  ImportInterruptedError,
  ImportLimitError,
  ImportOffsetError,
  RequestInvalidError,
} from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { WriteAudit } from '../quarantine-row.ts';
import type { ReplayWayIn } from '../replay-port.ts';
import { BodyReader } from './body-reader.ts';
import { CsvReader } from './csv-reader.ts';
import { importTimes, type ImportFormat, type LineReader } from './import-line.ts';
import { ImportRun, type ImportRunLimits } from './import-run.ts';
import {
  ImportStore,
  type ImportQuery,
  type ImportRecord,
  type RefusalQuery,
  type RefusedLine,
} from './import-store.ts';
import { HEAD_BYTES, LINE_BYTES_MAX, LineSplitter, type Line } from './line-splitter.ts';
import { ImportMetrics } from './metrics.ts';
import { NdjsonReader } from './ndjson-reader.ts';

/** Bounds of imports. */
export interface ImportLimits extends ImportRunLimits {
  /** Imports at once; of one organization there is one at most. */
  readonly runsMax: number;
  /** Largest file. */
  readonly bytesMax: number;
  /** A time further ahead is refused, in ms. */
  readonly aheadMaxMs: number;
  /** Longest wait for the next bytes of a file, in ms. */
  readonly idleMs: number;
}

/** A file that is to be imported. */
export interface ImportRequest {
  readonly organizationId: number;
  /** Public id of the key that sends it, for the audit trail. */
  readonly actor: string;
  readonly source: string;
  readonly format: ImportFormat;
  /** Go on where an import of the same file ended, when there was one. */
  readonly resume: boolean;
  /** Where in the file the body goes on behind its head; 0 when the body is the whole file. */
  readonly offset: number;
  /** Device of lines that name none. */
  readonly device: string | null;
  /** Other names for columns of CSV. */
  readonly columns: ReadonlyMap<string, string>;
  /** The file, or its head and what lies behind `offset`. */
  readonly body: Readable;
  /** As announced; null when it was not. */
  readonly bodyBytes: number | null;
}

/** An import with whether this program is reading its file now. */
export interface ImportView extends ImportRecord {
  readonly isActive: boolean;
}

/** How an import ended. */
export interface ImportResult {
  readonly import: ImportView;
  /** The first refused lines of this request, at most a hundred. */
  readonly refusals: readonly RefusedLine[];
}

/** What {@link Imports} is made of. */
export interface ImportsParts {
  readonly database: TenantDatabase;
  readonly ingest: ReplayWayIn;
  readonly writeAudit: WriteAudit;
  readonly limits: ImportLimits;
  /** Oldest reading that an organization may import, in ms. */
  readonly ageMaxMs: (organizationId: number) => Promise<number>;
  readonly registry: Registry;
  readonly log: Logger;
}

/** Lines that are read in one turn of the event loop: under 2 ms. */
const SLICE_LINES = 256;
const STOPPING = 'the program is shutting down';
const BUSY = 'the organization is importing a file already; wait for its end';

/** The imports of all organizations: one at a time for each, and a bounded number in all. */
export class Imports {
  readonly #parts: ImportsParts;
  readonly #store: ImportStore;
  readonly #metrics = new ImportMetrics();
  /** By organization; null until it is known which one it is. */
  readonly #running = new Map<number, ImportRun | null>();
  readonly #bodies = new Set<BodyReader>();
  #whenIdle: (() => void) | null = null;
  #isStopped = false;

  constructor(parts: ImportsParts) {
    this.#parts = parts;
    this.#store = new ImportStore(parts.database, parts.writeAudit);
    this.#metrics.register(parts.registry, parts.limits.runsMax, () => this.#running.size);
  }

  /**
   * Imports a file. Resolves when every line is committed or refused, and that is written down.
   * @throws {ImportBusyError} @throws {ImportLimitError} @throws {ImportOffsetError}
   * @throws {RequestInvalidError} 422 a header that cannot be read, 413 too large, 408 too slow.
   * @throws {ImportInterruptedError} @throws {StoreUnavailableError} it can be resumed then.
   */
  async import(request: ImportRequest): Promise<ImportResult> {
    const { organizationId, bodyBytes } = request;
    const { runsMax, bytesMax, idleMs } = this.#parts.limits;
    if (this.#isStopped) throw new ImportInterruptedError(STOPPING);
    if (this.#running.has(organizationId)) throw new ImportBusyError(BUSY);
    if (this.#running.size >= runsMax) throw new ImportLimitError(runsMax);
    if ((bodyBytes ?? 0) > bytesMax) throw tooLarge(bytesMax);
    this.#running.set(organizationId, null);
    const body = new BodyReader(request.body, idleMs);
    this.#bodies.add(body);
    try {
      return await this.#importFrom(body, request);
    } finally {
      body.close();
      this.#bodies.delete(body);
      this.#running.delete(organizationId);
      if (this.#running.size === 0) this.#whenIdle?.();
    }
  }

  /** @throws {ImportNotFoundError} @throws {StoreUnavailableError} */
  async get(organizationId: number, importId: string): Promise<ImportView> {
    return this.#viewOf(organizationId, await this.#store.get(organizationId, importId));
  }

  /** Newest first. @throws {StoreUnavailableError} */
  async list(query: ImportQuery): Promise<Page<ImportView>> {
    const { rows, hasMore } = await this.#store.list(query);
    return { rows: rows.map((row) => this.#viewOf(query.organizationId, row)), hasMore };
  }

  /** In the order of lines. @throws {ImportNotFoundError} @throws {StoreUnavailableError} */
  refusals(query: RefusalQuery): Promise<Page<RefusedLine>> {
    return this.#store.refusals(query);
  }

  /** A device was deleted: nothing more of it is stored. */
  forgetDevice(deviceId: number): void {
    for (const run of this.#running.values()) run?.forgetDevice(deviceId);
  }

  /** Interrupts what is running; each notes how far it has come. Resolves when all have. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const run of this.#running.values()) run?.stop(STOPPING);
    for (const body of this.#bodies) body.stop(STOPPING);
    if (this.#running.size === 0) return;
    await new Promise<void>((resolve) => {
      this.#whenIdle = resolve;
    });
  }

  async #importFrom(body: BodyReader, request: ImportRequest): Promise<ImportResult> {
    const { organizationId, actor, source, format, resume, offset } = request;
    const head = await body.head(HEAD_BYTES);
    const header = format === 'csv' ? firstLine(head) : null;
    const ageMaxMs = await this.#parts.ageMaxMs(organizationId);
    const reader = this.#createReader(header, request, ageMaxMs);
    const fingerprint = createHash('sha256').update(head).digest();
    const identity = { organizationId, source, format, fingerprint };
    const known = resume ? await this.#store.find(identity) : null;
    if (offset > (known?.byteOffset ?? 0)) {
      throw new ImportOffsetError(offset, known?.byteOffset ?? null);
    }
    const record = known ?? (await this.#store.create(identity));
    const { importId } = record;
    const { ingest, limits, log } = this.#parts;
    const own = { actor, ageMaxMs, store: this.#store, metrics: this.#metrics };
    const run = new ImportRun(organizationId, record, { ingest, limits, log, ...own });
    this.#running.set(organizationId, run);
    if (this.#isStopped) run.stop(STOPPING);
    log.info({ orgId: organizationId, importId, byteOffset: record.byteOffset }, 'import begins');
    try {
      await this.#feedAll(run, { body, head, offset, reader, headerLine: header?.number ?? 0 });
    } finally {
      await run.close();
      const { byteOffset, linesRead, linesRefused } = run.record;
      const progress = { byteOffset, linesRead, linesRefused };
      log.info({ orgId: organizationId, importId, ...progress }, 'import ends');
    }
    const end = await this.#store.get(organizationId, importId);
    return { import: { ...end, isActive: false }, refusals: run.shownRefusals };
  }

  #createReader(
    header: Line | null,
    { device, columns, format }: ImportRequest,
    ageMaxMs: number,
  ): LineReader {
    const { aheadMaxMs } = this.#parts.limits;
    const times = importTimes(Date.now(), ageMaxMs, aheadMaxMs);
    const options = { lineBytesMax: LINE_BYTES_MAX, device, times };
    if (format === 'ndjson') return new NdjsonReader(options);
    if (header === null) throw new RequestInvalidError(['header: the file is empty'], 422);
    return new CsvReader(header, { ...options, columns });
  }

  async #feedAll(run: ImportRun, file: FileParts): Promise<void> {
    const { body, head, offset, reader, headerLine } = file;
    const { byteOffset, linesRead } = run.record;
    const { bytesMax } = this.#parts.limits;
    const splitter = new LineSplitter(LINE_BYTES_MAX, { byteOffset, lines: linesRead });
    // What lies before the place to go on from was imported before.
    let skip = byteOffset - offset;
    let position = offset;
    const feed = async (lines: readonly Line[]): Promise<void> => {
      for (let at = 0; at < lines.length; at += SLICE_LINES) {
        const slice = lines.slice(at, at + SLICE_LINES).filter(({ number }) => number > headerLine);
        await run.feed(reader.read(slice));
        await nextTurn();
      }
    };
    let chunk = offset === 0 ? head : await body.next();
    for (; chunk !== null; chunk = await body.next()) {
      position += chunk.length;
      if (position > bytesMax) {
        await run.finish('failed', splitter);
        throw tooLarge(bytesMax);
      }
      const skipped = Math.min(skip, chunk.length);
      skip -= skipped;
      await feed(splitter.push(chunk.subarray(skipped)));
    }
    await feed(splitter.end());
    await run.finish('done', splitter);
  }

  /** Of an import that runs here more is known than the database was told. */
  #viewOf(organizationId: number, record: ImportRecord): ImportView {
    const run = this.#running.get(organizationId);
    if (run?.importId !== record.importId) return { ...record, isActive: false };
    return { ...run.record, state: 'running', updatedAt: record.updatedAt, isActive: true };
  }
}

/** A file on its way through an import. */
interface FileParts {
  readonly body: BodyReader;
  readonly head: Buffer;
  readonly offset: number;
  readonly reader: LineReader;
  /** Number of the line that is no record; 0 for none. */
  readonly headerLine: number;
}

function firstLine(head: Buffer): Line | null {
  const splitter = new LineSplitter(LINE_BYTES_MAX, { byteOffset: 0, lines: 0 });
  return splitter.push(head)[0] ?? splitter.end()[0] ?? null;
}

function tooLarge(bytesMax: number): RequestInvalidError {
  const fault = `the file is larger than ${bytesMax} bytes (IMPORT_BYTES_MAX); divide it`;
  return new RequestInvalidError([fault], 413);
}

import { setTimeout as delay } from 'node:timers/promises';
import { AppError, ImportInterruptedError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { Publication } from '../message.ts';
import type { ReplayWayIn } from '../replay-port.ts';
import { LineRefusal, type ImportMessage, type ReadLine } from './import-line.ts';
import type { ImportRecord, ImportState, ImportStore, RefusedLine } from './import-store.ts';
import type { Line } from './line-splitter.ts';
import { ImportTargets, type Target } from './import-targets.ts';
import type { ImportMetrics } from './metrics.ts';

/** Bounds of one import. */
export interface ImportRunLimits {
  /** Refused lines that are kept; further ones are only counted. */
  readonly refusalsMax: number;
}

/** What {@link ImportRun} works with. */
export interface ImportRunParts {
  readonly ingest: ReplayWayIn;
  readonly store: ImportStore;
  /** Public id of the key that sends the file. */
  readonly actor: string;
  readonly limits: ImportRunLimits;
  /** Oldest reading, in ms before its import. */
  readonly ageMaxMs: number;
  readonly metrics: ImportMetrics;
  readonly log: Logger;
}

/** Lines that may be on their way, and their bytes. */
const WINDOW_LINES_MAX = 16_384;
const WINDOW_BYTES_MAX = 4_194_304;
/** Refused lines that may wait to be written down. */
const REFUSED_WAITING_MAX = 1000;
const CHECKPOINT_MS = 1000;
/** Between attempts of a line that was not taken, and of the last checkpoint. */
const RETRY_MS = 500;
const LAST_SAVES_MAX = 60;
/** How long the end of an import that was cut off waits for what is on its way. */
const LEAVE_MS_MAX = 2000;
const CONTENT_CHARS_MAX = 1024;
/** Refused lines that the answer shows. */
const SHOWN_MAX = 100;

/** A line on its way, in the order of the file. */
interface Entry {
  readonly line: Line;
  isSettled: boolean;
  refusal: LineRefusal | null;
}

/**
 * Feeds the lines of one file to ingest and remembers how far it has come: everything before
 * {@link byteOffset} is acknowledged or refused, whatever order acknowledgements come in, and a second
 * later at most the database knows it. After a crash the lines behind it come again, which stores
 * nothing twice.
 */
export class ImportRun {
  readonly #parts: ImportRunParts;
  readonly #organizationId: number;
  readonly #record: ImportRecord;
  readonly #targets: ImportTargets;
  readonly #entries: Entry[] = [];
  readonly #shown: RefusedLine[] = [];
  readonly #timer: NodeJS.Timeout;
  #settledEntries = 0;
  #bytesOnWay = 0;
  #refusedWaiting: RefusedLine[] = [];
  #keepLeft: number;
  #byteOffset: number;
  #linesRead: number;
  #linesRefused: number;
  #savedOffset = -1;
  #isEndNoted = false;
  #saving: Promise<void> = Promise.resolve();
  #waiter: (() => void) | null = null;
  #waitingFor: Entry | null = null;
  #stopReason: string | null = null;

  constructor(organizationId: number, record: ImportRecord, parts: ImportRunParts) {
    this.#organizationId = organizationId;
    this.#record = record;
    this.#parts = parts;
    this.#targets = new ImportTargets(organizationId, parts);
    this.#byteOffset = record.byteOffset;
    this.#linesRead = record.linesRead;
    this.#linesRefused = record.linesRefused;
    this.#keepLeft = Math.max(0, parts.limits.refusalsMax - record.linesRefused);
    this.#timer = setInterval(() => this.#saveSoon(), CHECKPOINT_MS);
  }

  /** Id of the import. */
  get importId(): string {
    return this.#record.importId;
  }

  /** The import as it stands now, which the database learns a moment later. */
  get record(): ImportRecord {
    return {
      ...this.#record,
      byteOffset: this.#byteOffset,
      linesRead: this.#linesRead,
      linesRefused: this.#linesRefused,
    };
  }

  /** The first refused lines since this part of the file was begun, at most a hundred. */
  get shownRefusals(): readonly RefusedLine[] {
    return this.#shown;
  }

  /**
   * Takes the next lines of the file. Resolves when there is room for more.
   * @throws {ImportInterruptedError} when it was stopped. @throws {StoreUnavailableError}
   */
  async feed(lines: readonly ReadLine[]): Promise<void> {
    await this.#targets.find(lines);
    for (const { line, outcome } of lines) {
      const entry: Entry = { line, isSettled: false, refusal: null };
      this.#entries.push(entry);
      this.#bytesOnWay += line.bytes.length;
      if (outcome === null || outcome instanceof LineRefusal) this.#settle(entry, outcome);
      else await this.#feedOne(entry, outcome);
      if (this.#isFull) await this.#until(() => !this.#isFull);
    }
  }

  /**
   * Waits until all lines are settled, and notes the end.
   * @param end where the file ends, or where it was given up.
   */
  async finish(
    state: ImportState,
    end: { readonly byteOffset: number; readonly lines: number },
  ): Promise<void> {
    await this.#until(() => this.#entries.length === 0);
    // Empty lines at the end are nobody's entry.
    this.#byteOffset = end.byteOffset;
    this.#linesRead = end.lines;
    await this.#saveLast(state);
  }

  /** Ends the waiting of {@link feed} and {@link finish} with an error. */
  stop(reason: string): void {
    this.#stopReason ??= reason;
    this.#wake();
  }

  /** The device is gone: lines of it are refused from now on. */
  forgetDevice(deviceId: number): void {
    this.#targets.forget(deviceId);
  }

  /** Gives back the lanes. What is on its way has a moment to be settled and noted. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    const deadline = performance.now() + LEAVE_MS_MAX;
    while (this.#entries.length > 0 && performance.now() < deadline) await delay(20);
    // Of one that was cut off: the trail has who stored what was stored.
    if (!this.#isEndNoted) this.#saveSoon(true);
    await this.#saving;
    this.#targets.close();
  }

  get #isFull(): boolean {
    return (
      this.#entries.length >= WINDOW_LINES_MAX ||
      this.#bytesOnWay >= WINDOW_BYTES_MAX ||
      this.#refusedWaiting.length >= REFUSED_WAITING_MAX
    );
  }

  async #feedOne(entry: Entry, { device, payload }: ImportMessage): Promise<void> {
    const target = this.#targets.get(device) ?? (await this.#targets.lookUp(device));
    if (target instanceof LineRefusal) {
      this.#settle(entry, target);
      return;
    }
    target.onWay += 1;
    if (this.#send(entry, target, payload)) return;
    this.#waitingFor = entry;
    await this.#until(() => this.#waitingFor !== entry || entry.isSettled);
  }

  /** False when the message waits, and this for {@link Entry} to go on. */
  #send(entry: Entry, target: Target, payload: Buffer): boolean {
    const publication: Publication = {
      source: {
        report: () => undefined,
        resume: () => this.#resume(entry),
        // Nothing to end: it is offered again until it is taken.
        close: () => void setTimeout(() => this.#sendAgain(entry, target, payload), RETRY_MS),
      },
      channel: 'data',
      name: null,
      refusal: null,
      word: 'data',
      topic: `import/${this.importId}/${entry.line.number}`,
      payload,
      qos: 1,
      isWanted: () => false,
      acknowledge: (_canonical, keptApart) => {
        target.onWay -= 1;
        const refusal = keptApart && new LineRefusal(keptApart.code, keptApart.detail);
        this.#settle(entry, refusal);
      },
    };
    return this.#parts.ingest.acceptReplay(target.lane, publication, null);
  }

  #sendAgain(entry: Entry, target: Target, payload: Buffer): void {
    if (this.#stopReason === null) this.#send(entry, target, payload);
  }

  #resume(entry: Entry): void {
    if (this.#waitingFor === entry) this.#waitingFor = null;
    this.#wake();
  }

  /** Moves the offset over all lines that are settled, up to the first that is not. */
  #settle(entry: Entry, refusal: LineRefusal | null): void {
    entry.isSettled = true;
    entry.refusal = refusal;
    const entries = this.#entries;
    let done = this.#settledEntries;
    for (let next = entries[done]; next?.isSettled === true; next = entries[done]) {
      done += 1;
      this.#pass(next);
    }
    // Taken off in large pieces: shift() of each would cost the length of the window.
    const isWorth = done === entries.length || done >= WINDOW_LINES_MAX / 4;
    this.#settledEntries = isWorth ? 0 : done;
    if (isWorth) entries.splice(0, done);
    if (this.#waiter !== null) this.#wake();
  }

  #pass({ line, refusal }: Entry): void {
    this.#bytesOnWay -= line.bytes.length;
    this.#byteOffset = line.endOffset;
    this.#linesRead = line.number;
    this.#parts.metrics.lineSettled(refusal !== null);
    if (refusal === null) return;
    this.#linesRefused += 1;
    const refused = refusedLine(line, refusal);
    if (this.#shown.length < SHOWN_MAX) this.#shown.push(refused);
    if (this.#keepLeft === 0) return;
    this.#keepLeft -= 1;
    this.#refusedWaiting.push(refused);
    if (this.#refusedWaiting.length === REFUSED_WAITING_MAX) this.#saveSoon();
  }

  async #until(holds: () => boolean): Promise<void> {
    for (;;) {
      if (this.#stopReason !== null) throw new ImportInterruptedError(this.#stopReason);
      if (holds()) return;
      await new Promise<void>((resolve) => {
        this.#waiter = resolve;
      });
    }
  }

  #wake(): void {
    const waiter = this.#waiter;
    this.#waiter = null;
    waiter?.();
  }

  /** One at a time; a failure is tried again with the next. */
  #saveSoon(isEnd = false): void {
    this.#saving = this.#saving.then(async () => {
      if (this.#savedOffset === this.#byteOffset && !isEnd) return;
      try {
        await this.#save('running', isEnd);
      } catch (err) {
        this.#parts.log.debug({ err, importId: this.importId }, 'import not noted, will be again');
      }
      this.#wake();
    });
  }

  async #saveLast(state: ImportState): Promise<void> {
    clearInterval(this.#timer);
    await this.#saving;
    for (let attempt = 1; ; attempt += 1) {
      try {
        await this.#save(state, true);
        return;
      } catch (error) {
        const isPassing = error instanceof AppError && error.retryable;
        if (!isPassing || attempt === LAST_SAVES_MAX || this.#stopReason !== null) throw error;
      }
      await delay(RETRY_MS);
    }
  }

  async #save(state: ImportState, isEnd: boolean): Promise<void> {
    const refused = this.#refusedWaiting;
    const byteOffset = this.#byteOffset;
    this.#refusedWaiting = [];
    try {
      const progress = { byteOffset, linesRead: this.#linesRead, linesRefused: this.#linesRefused };
      const { store, actor } = this.#parts;
      const end = isEnd ? { actor, source: this.#record.source } : null;
      await store.save(this.#organizationId, this.importId, { state, ...progress, refused }, end);
      this.#savedOffset = byteOffset;
      this.#isEndNoted ||= isEnd;
    } catch (error) {
      this.#refusedWaiting = [...refused, ...this.#refusedWaiting];
      throw error;
    }
  }
}

function refusedLine({ number, bytes }: Line, { code, detail }: LineRefusal): RefusedLine {
  // PostgreSQL's text has no U+0000.
  const content = bytes.toString().slice(0, CONTENT_CHARS_MAX).replaceAll('\0', '\uFFFD');
  return { line: number, code, detail: detail.replaceAll('\0', '\uFFFD'), content };
}

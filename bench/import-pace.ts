import { formatCount } from './figures.ts';

/** How far an import has come. */
export interface ImportProgress {
  readonly byteOffset: number;
  readonly linesRead: number;
  readonly linesRefused: number;
}

const RETRY_MS_MAX = 10_000;
/** Without a step forward for so long it is given up. */
const STUCK_MS_MAX = 600_000;
/** Weight of the newest interval in the rates that are shown. */
const NEWEST = 0.3;

/** Says how fast an import goes and when it will end. */
export class ImportPace {
  readonly #bytes: number;
  #last: (ImportProgress & { readonly atMs: number }) | null = null;
  #bytesPerS = 0;
  #linesPerS = 0;

  /** @param bytes of the whole file. */
  constructor(bytes: number) {
    this.#bytes = bytes;
  }

  /** A line such as `42 %  1,000 lines (3 refused)  500 lines/s  1 min 20 s to go`. */
  line(progress: ImportProgress, nowMs: number): string {
    this.#note(progress, nowMs);
    const { byteOffset, linesRead, linesRefused } = progress;
    const percent = this.#bytes === 0 ? 100 : Math.floor((100 * byteOffset) / this.#bytes);
    const refused = linesRefused === 0 ? '' : ` (${formatCount(linesRefused)} refused)`;
    const parts = [`${percent} %`, `${formatCount(linesRead)} lines${refused}`];
    if (this.#bytesPerS > 0) {
      parts.push(`${formatCount(Math.round(this.#linesPerS))} lines/s`);
      parts.push(`${shownTime((this.#bytes - byteOffset) / this.#bytesPerS)} to go`);
    }
    return parts.join('  ');
  }

  #note(progress: ImportProgress, atMs: number): void {
    const last = this.#last;
    this.#last = { ...progress, atMs };
    if (last === null || atMs <= last.atMs || progress.byteOffset < last.byteOffset) return;
    const seconds = (atMs - last.atMs) / 1000;
    const weight = this.#bytesPerS === 0 ? 1 : NEWEST;
    const bytesPerS = (progress.byteOffset - last.byteOffset) / seconds;
    const linesPerS = (progress.linesRead - last.linesRead) / seconds;
    this.#bytesPerS += weight * (bytesPerS - this.#bytesPerS);
    this.#linesPerS += weight * (linesPerS - this.#linesPerS);
  }
}

/** Whether an import still goes forward, and how long to wait before the next attempt. */
export class Patience {
  #furthest = -1;
  #furtherAt = performance.now();
  #waitMs = 1000;

  /** @param byteOffset how far the import is. */
  note(byteOffset: number): void {
    if (byteOffset <= this.#furthest) return;
    this.#furthest = byteOffset;
    this.#furtherAt = performance.now();
    this.#waitMs = 1000;
  }

  /** @returns ms to wait; null when it has been stuck for too long. */
  next(): number | null {
    if (performance.now() - this.#furtherAt > STUCK_MS_MAX) return null;
    const waitMs = this.#waitMs;
    this.#waitMs = Math.min(RETRY_MS_MAX, waitMs * 2);
    return waitMs;
  }
}

function shownTime(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

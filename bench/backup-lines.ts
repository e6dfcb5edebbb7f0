import type { BackupProgress, BackupReport } from '../drizzle/backup/backup.ts';
import { isUnavailable } from '../drizzle/sqlstate.ts';
import { AppError, reasonOf, ToolFailedError } from '../errors.ts';
import { formatCount, formatTable } from './figures.ts';
import { createProgress } from './progress.ts';

/** Says on standard error how far a backup or a restore is. */
export interface ProgressTeller {
  readonly tell: (progress: BackupProgress) => void;
  end(): void;
}

/** Before that the time to go is a guess from nothing. */
const TIME_TO_GO_AFTER_MS = 2000;

/** Makes a {@link ProgressTeller} whose time to go counts from now. */
export function progressTeller(): ProgressTeller {
  const progress = createProgress(process.stderr);
  const startMs = performance.now();
  return {
    tell({ table, rows, bytes, fraction }) {
      const tookMs = performance.now() - startMs;
      const toGo =
        fraction === 0 || tookMs < TIME_TO_GO_AFTER_MS
          ? ''
          : `, ${Math.ceil((tookMs * (1 - fraction)) / fraction / 1000)} s to go`;
      const percent = Math.floor(fraction * 100);
      progress.show(
        `${percent} %, ${table}, ${formatCount(rows)} rows, ${formatBytes(bytes)}${toGo}`,
      );
    },
    end: () => progress.end(),
  };
}

/**
 * Waits for a backup or a restore, and turns what ended it from outside into a line for a person.
 * @throws {ToolFailedError} it was interrupted, or the database refuses something or is away.
 */
export async function explainFaults<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof AppError) throw error;
    const { name, code = '' } = error as NodeJS.ErrnoException;
    if (name === 'AbortError') throw new ToolFailedError('interrupted');
    const isSqlState = /^[0-9A-Z]{5}$/.test(code);
    if (!isSqlState && !isUnavailable(error)) throw error;
    throw new ToolFailedError(`the database says: ${reasonOf(error)}`);
  }
}

/** A table of the tables that have rows. */
export function backupTable({ rows }: BackupReport): string {
  const filled = Object.entries(rows)
    .filter(([, count]) => count > 0)
    .toSorted(([a], [b]) => a.localeCompare(b))
    .map(([table, count]) => [table, formatCount(count)]);
  return formatTable(['table', 'rows'], filled);
}

/** One line of what it came to. */
export function backupLine({ rows, bytes, fileBytes }: BackupReport, tookMs: number): string {
  const total = Object.values(rows).reduce((sum, count) => sum + count, 0);
  return `${formatCount(total)} rows, ${formatBytes(bytes)}, in the file ${formatBytes(fileBytes)}, ${(tookMs / 1000).toFixed(1)} s`;
}

function formatBytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

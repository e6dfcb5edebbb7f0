import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { waitingBytes } from '../ingest/spool/waiting-bytes.ts';
import { syncFolder } from '../drizzle/data-folder-files.ts';
import { RestoreRefusedError } from '../errors.ts';

/** Where messages wait for the database of a data folder. */
export function spoolFolder(dataDir: string): string {
  return join(dataDir, 'spool');
}

/**
 * The messages that wait for a database that is about to be replaced. They name devices by the numbers
 * that those have there, which may be other devices, or none, in the one that takes its place.
 */
export class LeftSpool {
  readonly #dataDir: string;
  readonly #mayGo: boolean;
  /** Where it was moved to; null when it was not. */
  asideFolder: string | null = null;

  /** @param mayGo whether it may be moved aside. */
  constructor(dataDir: string, mayGo: boolean) {
    this.#dataDir = dataDir;
    this.#mayGo = mayGo;
  }

  /** @throws {RestoreRefusedError} when messages wait and may not be moved aside. */
  async check(): Promise<void> {
    const folder = spoolFolder(this.#dataDir);
    const bytes = await waitingBytes(folder);
    if (bytes === 0 || this.#mayGo) return;
    throw new RestoreRefusedError(
      `${bytes} bytes of acknowledged messages wait in ${folder} for the database that was there. Start Puback with that database once, to store them; or say --set-spool-aside to have them moved to spool.replaced-…, where nothing reads them any more`,
    );
  }

  /** Moves what waits to another name, for good. */
  async setAside(): Promise<void> {
    const folder = spoolFolder(this.#dataDir);
    if ((await waitingBytes(folder)) === 0) return;
    const time = new Date().toISOString().replace(/[-:]|\..*/g, '');
    this.asideFolder = join(this.#dataDir, `spool.replaced-${time}`);
    await rename(folder, this.asideFolder);
    await syncFolder(this.#dataDir);
  }
}

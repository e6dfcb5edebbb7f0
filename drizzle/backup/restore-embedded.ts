import { randomBytes } from 'node:crypto';
import { copyFile, lstat, mkdir, readdir, rename, rm, stat, chown } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from '../../log.ts';
import { FileUnusableError, RestoreRefusedError } from '../../errors.ts';
import { syncFolder } from '../data-folder-files.ts';
import { lockDataFolder } from '../data-folder-lock.ts';
import { clusterFolder, urlFile } from '../embedded-cluster.ts';
import { clusterName, isServerProcess, readPostmaster, stopServer } from '../embedded-process.ts';
import { startEmbedded } from '../embedded.ts';
import type { ReadOptions } from './read-backup.ts';
import { restoreBackup, type RestoreReport } from './restore.ts';

/** Where an embedded database is to be restored. */
export interface EmbeddedRestoreOptions extends ReadOptions {
  readonly dataDir: string;
  /** Whether a database that is there already may be moved aside. */
  readonly replace: boolean;
  readonly log: Logger;
  /** Called when nobody else uses the data folder, before anything is done. An error ends the restore. */
  readonly onLocked?: () => Promise<void>;
  /** Called when all is restored, before it takes its place. An error ends the restore. */
  readonly onRestored?: () => Promise<void>;
}

/** What was restored, and where the database is that was there before. */
export interface EmbeddedRestoreReport extends RestoreReport {
  readonly replacedFolder: string | null;
}

const UNFINISHED = 'restore.unfinished-';

/**
 * Restores a backup into the embedded database of a data folder. All is done in a folder beside it, which
 * takes the database's place when it is complete; whatever happens before leaves what was there. The
 * connection string stays as it was, where there was one.
 * @throws {DataFolderInUseError} a program runs on the data folder. @throws {RestoreRefusedError} it has a
 * database and `replace` is false. As {@link restoreBackup}.
 */
export async function restoreEmbedded(
  options: EmbeddedRestoreOptions,
): Promise<EmbeddedRestoreReport> {
  const { dataDir, replace, file, onLocked, onRestored } = options;
  // Before anything is made for it.
  if (!(await exists(file)))
    throw new FileUnusableError('the backup', file, 'there is no such file');
  const release = await lockDataFolder(dataDir);
  try {
    const isThere = await exists(clusterFolder(dataDir));
    if (isThere && !replace) {
      throw new RestoreRefusedError(
        `${clusterFolder(dataDir)} has a database: set DATA_DIR to a new folder, or say --replace-database to have it moved aside`,
      );
    }
    await onLocked?.();
    // It would hold the port of the connection string.
    if (isThere) await stopLeftServer(clusterFolder(dataDir));
    await removeUnfinished(dataDir);
    const scratch = await makeScratch(dataDir);
    try {
      const report = await fill(scratch, options);
      await onRestored?.();
      return { ...report, replacedFolder: await takeItsPlace(dataDir, scratch) };
    } finally {
      await rm(scratch, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
    }
  } finally {
    await release();
  }
}

async function fill(scratch: string, options: EmbeddedRestoreOptions): Promise<RestoreReport> {
  const server = await startEmbedded({ dataDir: scratch, log: options.log });
  try {
    return await restoreBackup(server.url, options);
  } finally {
    await server.stop();
  }
}

/** With the connection string of the data folder, so that it stays the same. */
async function makeScratch(dataDir: string): Promise<string> {
  const scratch = join(dataDir, `${UNFINISHED}${randomBytes(4).toString('hex')}`);
  await mkdir(scratch, { mode: 0o700 });
  const owner = await stat(dataDir);
  if (process.getuid?.() === 0) await chown(scratch, owner.uid, owner.gid);
  if (await exists(urlFile(dataDir))) await copyFile(urlFile(dataDir), urlFile(scratch));
  return scratch;
}

/** The connection string first: a database without one could not be opened. */
async function takeItsPlace(dataDir: string, scratch: string): Promise<string | null> {
  const cluster = clusterFolder(dataDir);
  await rename(urlFile(scratch), urlFile(dataDir));
  let replacedFolder: string | null = null;
  if (await exists(cluster)) {
    const time = new Date().toISOString().replace(/[-:]|\..*/g, '');
    replacedFolder = join(dataDir, `postgres.replaced-${time}`);
    await rename(cluster, replacedFolder);
  }
  await rename(clusterFolder(scratch), cluster);
  await syncFolder(dataDir);
  return replacedFolder;
}

/** What a restore left that was killed. */
async function removeUnfinished(dataDir: string): Promise<void> {
  for (const name of await readdir(dataDir)) {
    if (!name.startsWith(UNFINISHED)) continue;
    const folder = join(dataDir, name);
    if (await exists(clusterFolder(folder))) await stopLeftServer(clusterFolder(folder));
    await rm(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  }
}

/** The server of a program that was killed goes on. */
async function stopLeftServer(cluster: string): Promise<void> {
  const postmaster = await readPostmaster(cluster);
  const name = await clusterName(cluster);
  if (postmaster !== null && (await isServerProcess(postmaster.pid, name))) {
    await stopServer(postmaster.pid, name);
  }
}

async function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return false;
      throw error;
    },
  );
}

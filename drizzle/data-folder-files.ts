import { constants, existsSync } from 'node:fs';
import { mkdir, open, rename, stat, type FileHandle } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';

/**
 * Opens a file of the data folder for its owner alone (0600), creating it when it is missing. A
 * symbolic link is refused. Created by root in somebody else's folder, it is given to that owner, so
 * that a later start without root can use it.
 * @param flags beside read and write, for example `O_APPEND`.
 */
export async function openPrivateFile(path: string, flags = 0): Promise<FileHandle> {
  const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;
  const file = await open(path, O_RDWR | O_CREAT | O_NOFOLLOW | flags, 0o600);
  if (process.getuid?.() === 0) {
    const folder = await stat(dirname(path));
    await file.chown(folder.uid, folder.gid);
  }
  return file;
}

/**
 * Makes a folder and those above it that are missing. One level at a time: `mkdir` with `recursive`
 * never comes back from places such as `/proc` that take no folders (Node.js 20).
 * @param mode of the folders that are made.
 */
export async function makeFolder(path: string, mode: number): Promise<void> {
  const missing: string[] = [];
  for (let folder = resolve(path); !existsSync(folder); folder = dirname(folder)) {
    missing.unshift(folder);
  }
  for (const folder of missing) await mkdir(folder, { mode }).catch(passOverExisting);
}

/** Another program may make the same folder at the same moment. */
function passOverExisting(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EEXIST') throw error;
}

/** Replaces a private file as a whole: after a crash it holds the old text or the new, on disk. */
export async function replacePrivateFile(path: string, text: string): Promise<void> {
  const newPath = `${path}.new`;
  const file = await openPrivateFile(newPath, constants.O_TRUNC);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(newPath, path);
  await syncFolder(dirname(path));
}

/** Waits until the names in a folder are on disk. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, constants.O_RDONLY);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

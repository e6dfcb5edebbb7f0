import { spawnSync } from 'node:child_process';
import { readFile, realpath, stat, type FileHandle } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DataFolderInUseError, FileUnusableError } from '../errors.ts';
import { makeFolder, openPrivateFile } from './data-folder-files.ts';

/** Gives the data folder free for another start. Calling it twice does no harm. */
export type ReleaseDataFolder = () => Promise<void>;

/** macOS and BSD: `open` takes the lock itself. Node has no names for these two flags there. */
const O_EXLOCK = 0x20;
const O_NONBLOCK_DARWIN = 0x4;
const FLOCK_TIMEOUT_MS = 5000;
const FLOCK_HELD = 1;
/** The holder writes its pid just after it has the lock; the one refused waits this long for it. */
const HOLDER_WAIT_MS = 200;

/**
 * Takes the data folder (made when missing, 0700) for this program. The kernel holds the lock on
 * `puback.lock`, so that it ends with the process however that dies, a reused pid means nothing, and
 * of two programs that start at the same instant exactly one gets it, also from different containers.
 * The file stays in the folder; the pid in it only serves the message.
 * @param flockCommand the program of util-linux or busybox that locks an inherited file on Linux.
 * Where it is missing a socket in the kernel's abstract namespace does the same for one container.
 * @throws {DataFolderInUseError} another program runs on the folder, or this one locked it before.
 * @throws {FileUnusableError} the folder cannot be made or written.
 */
export async function lockDataFolder(
  dataDir: string,
  flockCommand = 'flock',
): Promise<ReleaseDataFolder> {
  const file = await openLockFile(dataDir);
  let server: Server | null = null;
  try {
    if (process.platform !== 'darwin' && !takeFileLock(file, flockCommand)) {
      server = await listenOnFolderName(dataDir);
    }
    await file.truncate(0);
    await file.write(`${process.pid}\n`, 0);
  } catch (err) {
    await file.close();
    throw err === HELD ? await inUse(dataDir) : err;
  }
  let isReleased = false;
  return async () => {
    if (isReleased) return;
    isReleased = true;
    await file.truncate(0);
    server?.close();
    await file.close();
  };
}

/** Thrown inside this file when another program has the lock. */
const HELD = Symbol('lock held');

async function openLockFile(dataDir: string): Promise<FileHandle> {
  const path = join(dataDir, 'puback.lock');
  try {
    await makeFolder(dataDir, 0o700);
    return await openPrivateFile(
      path,
      process.platform === 'darwin' ? O_EXLOCK | O_NONBLOCK_DARWIN : 0,
    );
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'EAGAIN') throw await inUse(dataDir);
    throw new FileUnusableError('the data folder', dataDir, err);
  }
}

/**
 * A lock of flock(2) belongs to the open file, which the command shares with us: it stays when the
 * command has ended. No other child inherits the file.
 * @returns false when the command or the file system cannot lock.
 */
function takeFileLock(file: FileHandle, flockCommand: string): boolean {
  const { status } = spawnSync(flockCommand, ['-n', '3'], {
    stdio: ['ignore', 'ignore', 'ignore', file.fd],
    env: { PATH: `/usr/bin:/bin:/usr/local/bin:${process.env['PATH'] ?? ''}` },
    timeout: FLOCK_TIMEOUT_MS,
  });
  if (status === FLOCK_HELD) throw HELD;
  return status === 0;
}

async function listenOnFolderName(dataDir: string): Promise<Server> {
  const { dev, ino } = await stat(await realpath(dataDir), { bigint: true });
  const name = `puback-data-${dev}-${ino}`;
  const server = createServer((socket) => socket.destroy());
  return new Promise((resolve, reject) => {
    server.once('error', (err: NodeJS.ErrnoException) =>
      reject(err.code === 'EADDRINUSE' ? HELD : new FileUnusableError('the lock on', dataDir, err)),
    );
    server.listen(process.platform === 'win32' ? `\\\\?\\pipe\\${name}` : `\0${name}`, () => {
      server.unref();
      resolve(server);
    });
  });
}

async function inUse(dataDir: string): Promise<DataFolderInUseError> {
  const until = Date.now() + HOLDER_WAIT_MS;
  for (;;) {
    const pid = Number.parseInt(await readFile(join(dataDir, 'puback.lock'), 'utf8'), 10);
    if (pid > 0) return new DataFolderInUseError(dataDir, pid);
    if (Date.now() >= until) return new DataFolderInUseError(dataDir, 0);
    await sleep(10);
  }
}

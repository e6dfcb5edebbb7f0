import { constants } from 'node:fs';
import { copyFile, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { openPrivateFile } from './data-folder-files.ts';

const LOG_BYTES_MAX = 4_194_304;
const TAIL_BYTES = 2000;

/** Where the server writes. At most about 4 MiB, and as much again of the past in `postgres.log.1`. */
export function serverLogPath(dataDir: string): string {
  return join(dataDir, 'postgres.log');
}

/** Opens the log for a server to append to. Close it when the server has been started. */
export async function openServerLog(dataDir: string) {
  const file = await openPrivateFile(serverLogPath(dataDir), constants.O_APPEND);
  return { fd: file.fd, startBytes: (await file.stat()).size, close: () => file.close() };
}

/**
 * Moves what is there to `postgres.log.1` when the log has grown too long. The server appends, so it
 * goes on at the new end; lines that it writes between copy and cut are lost.
 */
export async function boundServerLog(dataDir: string): Promise<void> {
  const path = serverLogPath(dataDir);
  const file = await openPrivateFile(path);
  try {
    if ((await file.stat()).size <= LOG_BYTES_MAX) return;
    await rm(`${path}.1`, { force: true });
    await copyFile(path, `${path}.1`, constants.COPYFILE_EXCL);
    await file.truncate(0);
  } finally {
    await file.close();
  }
}

/** The end of what the server wrote from `startBytes` on, at most 2000 bytes. */
export async function readLogTail(dataDir: string, startBytes = 0): Promise<string> {
  const file = await open(serverLogPath(dataDir), 'r');
  try {
    const { size } = await file.stat();
    const from = Math.max(Math.min(startBytes, size), size - TAIL_BYTES);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(TAIL_BYTES), 0, TAIL_BYTES, from);
    return buffer.toString('utf8', 0, bytesRead).trim();
  } finally {
    await file.close();
  }
}

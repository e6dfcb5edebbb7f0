import { chmod, mkdir, open, readdir, readFile, rename, unlink } from 'node:fs/promises';

/** An open file of the spool; `FileHandle` is one. */
export interface SpoolFile {
  write(
    buffer: Buffer,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ bytesWritten: number }>;
  read(
    buffer: Buffer,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ bytesRead: number }>;
  datasync(): Promise<void>;
  truncate(bytes: number): Promise<void>;
  stat(): Promise<{ size: number }>;
  close(): Promise<void>;
}

/** What the spool asks of the file system; tests put faults in its place. */
export interface SpoolFiles {
  /** @param flags `wx`: a new file to write; `r+`: one that is there; `r`: to read alone. */
  open(path: string, flags: 'wx' | 'w' | 'r+' | 'r'): Promise<SpoolFile>;
  list(folder: string): Promise<string[]>;
  readSmall(path: string): Promise<Buffer>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  /** Makes a folder for the owner alone, with those above it. */
  makeFolder(folder: string): Promise<void>;
  /** Makes names that were added to a folder outlive a power cut. */
  syncFolder(folder: string): Promise<void>;
}

/** The file system itself. Files are for the owner alone. */
export const REAL_FILES: SpoolFiles = {
  open: (path, flags) => open(path, flags, 0o600),
  list: (folder) => readdir(folder),
  readSmall: (path) => readFile(path),
  rename,
  unlink,
  async makeFolder(folder) {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await chmod(folder, 0o700);
  },
  async syncFolder(folder) {
    // Windows cannot open a folder, and needs no such call.
    if (process.platform === 'win32') return;
    const handle = await open(folder, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  },
};

/** Writes all of a buffer's first bytes, in as many calls as the disk wants. */
export async function writeAll(
  file: SpoolFile,
  buffer: Buffer,
  length: number,
  position: number,
): Promise<void> {
  let written = 0;
  while (written < length) {
    const { bytesWritten } = await file.write(
      buffer,
      written,
      length - written,
      position + written,
    );
    if (bytesWritten === 0) throw new Error('the disk took no byte');
    written += bytesWritten;
  }
}

/** Reads up to so many bytes; fewer come only at the end of the file. */
export async function readUpTo(file: SpoolFile, position: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(bytes);
  let filled = 0;
  while (filled < bytes) {
    const { bytesRead } = await file.read(buffer, filled, bytes - filled, position + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return filled === bytes ? buffer : buffer.subarray(0, filled);
}

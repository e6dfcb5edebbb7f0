import { spawnSync } from 'node:child_process';
import { mkdir, rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ToolFailedError } from '../errors.ts';
import { makeScratchFolder } from './scratch-folder.ts';

const FILLER = 'filler';
const CHUNK_BYTES = 1_048_576;

/** A small file system in memory, mounted on a folder, so that it can be filled without harm. */
export class ScratchDisk {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /**
   * Mounts one. The mount goes with {@link unmount} only.
   * @throws {ToolFailedError} when this process may not mount.
   */
  static async mount(path: string, megabytes: number): Promise<ScratchDisk> {
    await mkdir(path, { recursive: true });
    const options = `size=${megabytes}m,mode=711`;
    const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'puback', path], {
      encoding: 'utf8',
    });
    if (status !== 0) throw new ToolFailedError(`${path} cannot be mounted: ${stderr.trim()}`);
    return new ScratchDisk(path);
  }

  /** Takes all the room that is left. */
  async fill(): Promise<void> {
    const filler = join(this.path, FILLER);
    let chunk = CHUNK_BYTES;
    // Down to the last byte: what is written next gets ENOSPC.
    while (chunk >= 1) {
      const isFull = await writeFile(filler, Buffer.alloc(chunk), { flag: 'a' }).then(
        () => false,
        isOutOfSpace,
      );
      if (isFull) chunk = Math.floor(chunk / 8);
    }
  }

  /** Gives back what {@link fill} took. */
  async free(): Promise<void> {
    await rm(join(this.path, FILLER), { force: true });
  }

  /** Bytes that are left. */
  async bytesLeft(): Promise<number> {
    const { bavail, bsize } = await statfs(this.path);
    return bavail * bsize;
  }

  /** Unmounts, at once and in a way that works also while files are open. */
  unmount(): void {
    spawnSync('umount', ['--lazy', this.path]);
  }
}

/** @returns why nothing can be mounted here, or null: tried. */
export async function mountObstacle(): Promise<string | null> {
  if (process.getuid?.() !== 0) return 'only root may mount a small disk';
  const folder = await makeScratchFolder('mount');
  try {
    (await ScratchDisk.mount(join(folder.path, 'disk'), 1)).unmount();
    return null;
  } catch (error) {
    return error instanceof ToolFailedError ? error.message : String(error);
  } finally {
    await folder.remove();
  }
}

function isOutOfSpace(error: NodeJS.ErrnoException): true {
  if (error.code === 'ENOSPC') return true;
  throw error;
}

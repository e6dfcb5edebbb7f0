import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A temporary folder with room for a data folder, a log and what else a run leaves behind. */
export interface ScratchFolder {
  path: string;
  dataDir: string;
  logFile: string;
  remove(): Promise<void>;
}

/** Makes one below the system's folder for temporary files. */
export async function makeScratchFolder(name: string): Promise<ScratchFolder> {
  const path = await mkdtemp(join(tmpdir(), `puback-${name}-`));
  // As root the embedded database runs as another user, who has to pass through.
  await chmod(path, 0o711);
  return {
    path,
    dataDir: join(path, 'data'),
    logFile: join(path, 'program.log'),
    remove: () => rm(path, { recursive: true, force: true }),
  };
}

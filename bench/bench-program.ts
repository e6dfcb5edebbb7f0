import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ToolFailedError } from '../errors.ts';
import { ApiClient } from './api-client.ts';
import { provisionFleet } from './fleet-keys.ts';
import { interruption } from './command-line.ts';
import { startProgram, stopLeftDatabase, type Program } from './program.ts';
import type { Progress } from './progress.ts';
import { makeScratchFolder, type ScratchFolder } from './scratch-folder.ts';

/** Settings of a program that is measured: any ports, and no limit that a load would meet. */
export const LIFTED_LIMITS = {
  MQTT_PORT: '0',
  HTTP_PORT: '0',
  DEVICE_MESSAGES_PER_S: '0',
  DEVICE_POINTS_PER_S: '0',
  ORGANIZATION_MESSAGES_PER_S: '0',
  ADDRESS_CONNECTIONS_MAX: '0',
  ADDRESS_UNAUTHENTICATED_MAX: '0',
  ADDRESS_CONNECTS_PER_S: '0',
  LOG_LEVEL: 'warn',
};

/**
 * Makes devices and keys, one for each connection of each load. No device is in two loads: the times of
 * one load run ahead of the clock, and would meet those of the next.
 * @param loads how many connections each has
 * @returns a file of keys for each load, in order.
 */
export async function writeKeys(
  program: Program,
  scratch: ScratchFolder,
  loads: readonly { readonly connections: number }[],
  progress: Progress,
): Promise<string[]> {
  const { httpUrl, adminKey } = program.credentials;
  const count = loads.reduce((sum, { connections }) => sum + connections, 0);
  const name = { prefix: 'bench', keyName: 'bench', tags: ['bench'] };
  const boards = await provisionFleet(new ApiClient(httpUrl, adminKey), name, count, (ready) => {
    progress.show(`${ready} of ${count} devices have a key`);
    return true;
  });
  const files: string[] = [];
  for (const [index, { connections }] of loads.entries()) {
    const path = join(scratch.path, `keys-${index}.json`);
    await writeFile(path, JSON.stringify(boards.splice(0, connections)), { mode: 0o600 });
    files.push(path);
  }
  return files;
}

/**
 * Runs work on a program of its own: on a temporary data folder, with the limits lifted and keys for each
 * load. It is stopped and the folder removed whatever happens; a signal to this process ends the work.
 * @param name of the folder
 * @throws {ToolFailedError} the program does not start, or the work was interrupted.
 */
export async function withBenchProgram<T>(
  name: string,
  loads: readonly { readonly connections: number }[],
  progress: Progress,
  work: (program: Program, keysFiles: readonly string[]) => Promise<T>,
): Promise<T> {
  const interrupted = failOn(interruption());
  const scratch = await makeScratchFolder(name);
  try {
    progress.step('starting the program');
    const { dataDir, logFile } = scratch;
    const environment = { ...LIFTED_LIMITS, DATABASE_URL: '' };
    const program = await startProgram({ dataDir, logFile, environment });
    try {
      const task = writeKeys(program, scratch, loads, progress).then((files) =>
        work(program, files),
      );
      return await Promise.race([task, interrupted]);
    } finally {
      await program.stop();
    }
  } finally {
    progress.end();
    await stopLeftDatabase(scratch.dataDir);
    await scratch.remove();
  }
}

/** Never resolves; rejects when the signal aborts. */
export function failOn(interrupted: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    interrupted.addEventListener('abort', () => reject(new ToolFailedError('interrupted')));
  });
}

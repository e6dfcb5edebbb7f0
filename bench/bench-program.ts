import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ToolFailedError } from '../errors.ts';
import { ApiClient } from './api-client.ts';
import { provisionFleet } from './fleet-keys.ts';
import type { Program } from './program.ts';
import type { Progress } from './progress.ts';
import type { ScratchFolder } from './scratch-folder.ts';

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

/** Never resolves; rejects when the signal aborts. */
export function failOn(interrupted: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    interrupted.addEventListener('abort', () => reject(new ToolFailedError('interrupted')));
  });
}

import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * The folder that holds package.json, whether this file runs as source or from `dist/`.
 * @throws {Error} when there is none above this file, which only a broken installation can cause.
 */
export function findPackageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    if (dirname(folder) === folder) throw new Error('package.json not found above the program');
    folder = dirname(folder);
  }
  return folder;
}

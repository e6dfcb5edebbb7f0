import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { PROGRAM_FLAGS } from '../../bench/program.ts';
import { findPackageRoot } from '../../drizzle/package-root.ts';

const read = (file: string): Promise<string> => readFile(join(findPackageRoot(), file), 'utf8');

it('npm start, the image and the tools start the program with the same flags of Node.js', async () => {
  const { scripts } = JSON.parse(await read('package.json')) as { scripts: { start: string } };
  const words = ['node', ...PROGRAM_FLAGS, '--enable-source-maps', 'dist/main.js'];
  expect(scripts.start).toBe(`exec ${words.join(' ')}`);
  const entry = words.map((word) => `"${word}"`).join(', ');
  expect(await read('Dockerfile')).toContain(`ENTRYPOINT [${entry}]\n`);
});

import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodeArguments } from '../../bench/program.ts';
import { findPackageRoot } from '../../drizzle/package-root.ts';
import { startTestApp, type TestApp } from '../support/app.ts';
import { hasProgram, run } from '../support/programs.ts';

const isComplete = ['curl', 'bash'].every((program) =>
  hasProgram(program, 'the commands of docs/keys.md and docs/campaigns.md'),
);
const FACTORY = [process.execPath, ...nodeArguments('bench/factory.ts')].join(' ');

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp();
});
afterAll(() => app.stop());

/** What the commands of a page say; those for the tools of ESP-IDF are left out. */
async function runPage(page: string): Promise<string> {
  const text = await readFile(`${findPackageRoot()}/docs/${page}`, 'utf8');
  const blocks = [...text.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block = '']) =>
    block
      .replaceAll('http://127.0.0.1:8080', app.addresses.httpUrl)
      .replaceAll('mqtt://127.0.0.1:1883', app.addresses.mqttUrl)
      .replaceAll('npm run factory --', `${FACTORY} --data-dir ${app.dataDir}`)
      .replaceAll(/(?:\.\/|\b)data\//g, `${app.dataDir}/`),
  );
  const own = blocks.filter((block) => !block.includes('esptool'));
  const script = ['set -eu', `cd ${findPackageRoot()}`, ...own].join('\n');
  const { stdout } = await run('bash', ['-c', script], 150_000);
  return stdout;
}

describe.skipIf(!isComplete)('the pages for whoever has many devices', { timeout: 180_000 }, () => {
  it('docs/keys.md has commands that work when they are pasted', async () => {
    const stdout = await runPage('keys.md');
    expect(stdout).not.toMatch(/"status":[45]/);
    expect(stdout).toContain('thermo-0003.svg');
    expect(stdout).toContain('"user":"demo/a4cf12f0e1b2"');
    expect(stdout).toContain('{"st":"wait"');
    expect(stdout).toMatch(/\{"st":"ok","user":"demo\/a4cf12f0e1ff","key":"pbd_/);
    expect(stdout).toMatch(/"device":"first","state":"asked"/);
    expect(stdout).toMatch(/"kind":"rekey".*"state":"running"/);
  });

  it('docs/campaigns.md has commands that work when they are pasted', async () => {
    const stdout = await runPage('campaigns.md');
    expect(stdout).not.toMatch(/"status":[45]/);
    expect(stdout).toMatch(/"name":"louder logs".*"state":"running"/);
  });
});

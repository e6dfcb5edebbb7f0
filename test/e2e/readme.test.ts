import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findPackageRoot } from '../../drizzle/package-root.ts';
import { startTestApp, type TestApp } from '../support/app.ts';
import { hasProgram, run } from '../support/programs.ts';

const isComplete = ['mosquitto_pub', 'mosquitto_sub', 'curl', 'bash'].every((program) =>
  hasProgram(program, 'the tour of the README'),
);

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp();
});
afterAll(() => app.stop());

/** The shell blocks of a chapter, with the addresses and the folder of this test. */
async function commandsOf(chapter: string): Promise<string[]> {
  const readme = await readFile(`${findPackageRoot()}/README.md`, 'utf8');
  const text = readme.split(/^## /m).find((part) => part.startsWith(`${chapter}\n`)) ?? '';
  const mqttPort = new URL(app.addresses.mqttUrl).port;
  return [...text.matchAll(/```sh\n([\s\S]*?)```/g)].map((block) =>
    (block[1] ?? '')
      .replaceAll('http://127.0.0.1:8080', app.addresses.httpUrl)
      .replaceAll('-h 127.0.0.1', `-h 127.0.0.1 -p ${mqttPort}`)
      .replaceAll('./data/', `${app.dataDir}/`),
  );
}

describe.skipIf(!isComplete)('the tour of the README', () => {
  it('works when it is pasted, and its commands answer what it says', async () => {
    const blocks = await commandsOf('A tour in 60 seconds');
    expect(blocks.length).toBeGreaterThan(4);
    const script = ['set -eu', `cd ${findPackageRoot()}`, ...blocks].join('\n');
    const { stdout } = await run('bash', ['-c', script]);
    expect(stdout).toContain('"metric":"temp","value":21.5');
    expect(stdout).toContain('"metric":"temp","value":21.7');
    expect(stdout).toContain('"code":"bad_json"');
    expect(stdout).toContain('"device":"boiler-7"');
    expect(stdout).toContain('v1/demo/first/data {"ts":');
    expect(stdout).toContain('"refusals"');
    expect(stdout).toMatch(/"key":"pbd_\w{8}_\w{33}"/);
  });
});

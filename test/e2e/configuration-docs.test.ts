import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findPackageRoot } from '../../drizzle/package-root.ts';
import { startTestApp, type TestApp } from '../support/app.ts';
import { hasProgram, run } from '../support/programs.ts';

const isComplete = ['mosquitto_pub', 'curl', 'bash'].every((program) =>
  hasProgram(program, 'the commands of docs/configuration.md'),
);

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp();
});
afterAll(() => app.stop());

describe.skipIf(!isComplete)('docs/configuration.md', { timeout: 180_000 }, () => {
  it('has commands that work when they are pasted, and answer what it says', async () => {
    const page = await readFile(`${findPackageRoot()}/docs/configuration.md`, 'utf8');
    const mqttPort = new URL(app.addresses.mqttUrl).port;
    const blocks = [...page.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block = '']) =>
      block
        .replaceAll('http://127.0.0.1:8080', app.addresses.httpUrl)
        .replaceAll('-h 127.0.0.1', `-h 127.0.0.1 -p ${mqttPort}`)
        .replaceAll('./data/', `${app.dataDir}/`),
    );
    const script = ['set -eu', `cd ${findPackageRoot()}`, ...blocks].join('\n');
    const { stdout } = await run('bash', ['-c', script], 150_000);
    expect(stdout).not.toContain('"status":4');
    expect(stdout).toMatch(/\{"v":1,"cfg":\{/);
    expect(stdout).toMatch(/"reported":\{"version":1,"ok":true,"document":\{"/);
    expect(stdout).toMatch(/"version":2,"desired":\{"thr":30.5,"every":30\}/);
    expect(stdout).toMatch(/"effect":\{"changed":1,"heldCount":0/);
    const { body } = await app.api('GET', '/api/v1/devices/first/configuration');
    expect(body.document).toEqual({ every: 60, thr: 30.5, mode: 'auto', net: { retry: 3 } });
    // The size that the page shows.
    const shown = /"packet": \{ "bytes": (\d+)/.exec(page)?.[1];
    const first = await app.api('GET', '/api/v1/devices/first/configuration/versions/1');
    const payload = JSON.stringify({ v: 1, cfg: first.body.document });
    expect(Number(shown)).toBe(2 + 2 + 'v1/me/in/cfg'.length + 2 + payload.length);
  });
});

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findPackageRoot } from '../../drizzle/package-root.ts';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';
import { hasProgram, run } from '../support/programs.ts';

const isComplete = ['openssl', 'curl', 'bash'].every((program) =>
  hasProgram(program, 'the commands of docs/updates.md'),
);

let app: TestApp;
let page: string;
let folder: string;
beforeAll(async () => {
  app = await startTestApp({ FIRMWARE_SIGNATURE_REQUIRED: 'yes' });
  page = await readFile(`${findPackageRoot()}/docs/updates.md`, 'utf8');
  folder = await mkdtemp(join(tmpdir(), 'puback-updates-'));
});
afterAll(async () => {
  await app.stop();
  await rm(folder, { recursive: true });
});

describe('docs/updates.md', { timeout: 180_000 }, () => {
  it.skipIf(!isComplete)(
    'has commands that sign, upload, offer and fetch an image when they are pasted',
    async () => {
      const blocks = [...page.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block = '']) =>
        block
          .replaceAll('http://127.0.0.1:8080', app.addresses.httpUrl)
          .replaceAll('./data/', `${app.dataDir}/`),
      );
      const script = ['set -eu', `cd ${folder}`, ...blocks].join('\necho\n');
      const { stdout } = await run('bash', ['-c', script], 150_000);
      expect(stdout).toMatch(/"signer":"build","publicKey":"[^"]+","state":"active"/);
      expect(stdout).toMatch(
        /"model":"thermo-1","version":"1.4.3","state":"ready","bytes":300000.*"signer":"build"/,
      );
      expect(stdout).toMatch(/"device":"first".*"state":"offered"/);
      expect(stdout).toMatch(/"dryRun":true,"kind":"update".*"first":\["first"\]/);
      expect(stdout).toMatch(/HTTP\/1\.1 200 OK[\s\S]*content-length: 300000/);
      expect(stdout).toMatch(/x-firmware-signature: \S+/);
      expect(stdout).toMatch(/^the same$/m);
      const [update] = (await app.api('GET', '/api/v1/devices/first/updates')).body.data;
      // What was sent is noted behind the last byte.
      await eventually('the whole image', async () => {
        const { body } = await app.api('GET', `/api/v1/updates/${update.id}`);
        return body.state === 'installing' && body.bytesSent === 300_000;
      });
    },
  );
});

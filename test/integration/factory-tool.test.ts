import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTestApi, type TestApi } from '../support/api.ts';
import { run } from '../support/programs.ts';

const TOOL = fileURLToPath(new URL('../../bench/factory.ts', import.meta.url));
const TSX = fileURLToPath(new URL('../../node_modules/tsx/dist/cli.mjs', import.meta.url));

let t: TestApi;
let folder: string;

beforeAll(async () => {
  t = await createTestApi();
  t.checks = [{ name: 'database', isOk: true }];
  folder = await mkdtemp(join(tmpdir(), 'puback-factory-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
  await t.stop();
});

function runTool(...args: string[]) {
  const access = ['--http-url', t.url, '--admin-key', t.acme.adminKey];
  return run(process.execPath, [TSX, TOOL, ...access, ...args]).then(
    (output) => ({ status: 0, ...output }),
    (error: unknown) => {
      const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
      return { status: code, stdout, stderr };
    },
  );
}

describe('npm run factory', () => {
  it('writes a file to flash and a label for each device, for their owner alone', async () => {
    const out = join(folder, 'batch');
    const batch = ['--count', '3', '--prefix', 'thermo-', '--type', 'thermo', '--tag', 'hall'];
    const { status, stdout } = await runTool('--out', out, ...batch);
    expect({ status, stdout }).toEqual({
      status: 0,
      stdout: `3 devices in ${out}; index.csv lists them\n`,
    });
    const names = ['thermo-0001', 'thermo-0002', 'thermo-0003'];
    const files = [...names.flatMap((name) => [`${name}.csv`, `${name}.svg`]), 'index.csv'];
    expect((await readdir(out)).toSorted()).toEqual(files.toSorted());
    for (const file of files) {
      expect((await stat(join(out, file))).mode & 0o777, file).toBe(0o600);
    }
    const csv = await readFile(join(out, 'thermo-0002.csv'), 'utf8');
    const [, key = ''] = /^key,data,string,(pbd_\w+)$/m.exec(csv) ?? [];
    expect(await t.registry.verifyKey(key)).toMatchObject({
      ok: true,
      principal: { device: 'thermo-0002' },
    });
    const index = await readFile(join(out, 'index.csv'), 'utf8');
    expect(index).toContain('thermo-0002,acme/thermo-0002,');
    expect(index + stdout).not.toContain(key.slice(13));
  });

  it('makes nothing when it could not write it down', async () => {
    const before = await countDevices();
    const full = await runTool('--out', join(folder, 'batch'), '--prefix', 'other-');
    expect(full).toMatchObject({ status: 2 });
    expect(full.stderr).toContain('is not empty');
    const forbidden = await runTool('--out', '/dev/null/nowhere', '--prefix', 'other-');
    expect(forbidden).toMatchObject({ status: 2 });
    const nameless = await runTool('--prefix', 'other-');
    expect(nameless).toMatchObject({ status: 2 });
    expect(await countDevices()).toBe(before);
  });

  it('says what the server refuses', async () => {
    const taken = await runTool('--out', join(folder, 'again'), '--prefix', 'thermo-');
    expect(taken).toMatchObject({ status: 2 });
    expect(taken.stderr).toContain('DEVICE_EXISTS');
  });
});

async function countDevices(): Promise<number> {
  return (await t.send('GET', '/api/v1/devices')).body.data.length;
}

import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FileUnusableError } from '../../errors.ts';
import { ensureCredentials, writeAddresses, type FirstStart } from '../../registry/first-start.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { createOrganization, createTestRegistry } from '../support/registry.ts';

let test: TestDatabase;
let dataDir: string;
beforeEach(async () => {
  test = await createTestDatabase();
  dataDir = join(mkdtempSync(join(tmpdir(), 'puback-first-')), 'data');
});
afterEach(async () => {
  await test.drop();
  rmSync(join(dataDir, '..'), { recursive: true, force: true });
});

const ADDRESSES = { mqttUrl: 'mqtt://127.0.0.1:1883', httpUrl: 'http://127.0.0.1:8080' };

function ensure(reissue: 'never' | 'when missing' | 'always'): Promise<FirstStart> {
  return ensureCredentials({ database: test.database, dataDir, reissue });
}

function file(): Record<string, string> {
  return JSON.parse(readFileSync(join(dataDir, 'credentials.json'), 'utf8')) as Record<
    string,
    string
  >;
}

async function isAccepted(key: string | undefined): Promise<boolean> {
  return (await createTestRegistry(test.database).verifyKey(key ?? '')).ok;
}

describe('the first start', () => {
  it('makes an organization, an admin key and a device with a key, and writes them down', async () => {
    const { created, issued, credentials } = await ensure('when missing');
    expect({ created, issued }).toEqual({ created: true, issued: true });
    if (credentials === null) throw new Error('no credentials');
    await writeAddresses(dataDir, credentials, ADDRESSES);
    expect(file()).toEqual({
      organization: 'demo',
      adminKey: expect.stringMatching(/^pba_/) as string,
      device: 'first',
      deviceKey: expect.stringMatching(/^pbd_/) as string,
      ...ADDRESSES,
    });
    expect(Object.keys(file())).toEqual([
      'organization',
      'adminKey',
      'device',
      'deviceKey',
      'mqttUrl',
      'httpUrl',
    ]);
    expect(statSync(join(dataDir, 'credentials.json')).mode & 0o777).toBe(0o600);
    expect(readdirSync(dataDir)).toEqual(['credentials.json']);
    expect(await isAccepted(file()['adminKey'])).toBe(true);
    expect(await isAccepted(file()['deviceKey'])).toBe(true);
  });

  it('is done once when two programs start at once', async () => {
    const outcomes = await Promise.all(
      ['a', 'b', 'c'].map((name) =>
        ensureCredentials({
          database: test.database,
          dataDir: join(dataDir, name),
          reissue: 'never',
        }),
      ),
    );
    expect(outcomes.filter(({ created }) => created)).toHaveLength(1);
    expect(outcomes.filter(({ credentials }) => credentials === null)).toHaveLength(2);
  });
});

describe('a later start', () => {
  it('keeps the keys of the file and refreshes its addresses', async () => {
    await ensure('when missing');
    const before = file();
    const { created, issued, credentials } = await ensure('when missing');
    expect({ created, issued }).toEqual({ created: false, issued: false });
    if (credentials === null) throw new Error('no credentials');
    await writeAddresses(dataDir, credentials, { ...ADDRESSES, httpUrl: 'http://127.0.0.1:1' });
    expect(file()).toEqual({ ...before, ...ADDRESSES, httpUrl: 'http://127.0.0.1:1' });
  });

  it('makes new keys when the file is missing and it may, and none when it may not', async () => {
    await ensure('when missing');
    const before = file();
    rmSync(join(dataDir, 'credentials.json'));
    expect(await ensure('never')).toEqual({ created: false, issued: false, credentials: null });
    expect(readdirSync(dataDir)).toEqual([]);
    const { created, issued } = await ensure('when missing');
    expect({ created, issued }).toEqual({ created: false, issued: true });
    expect(file()['adminKey']).not.toBe(before['adminKey']);
    expect(await isAccepted(file()['adminKey'])).toBe(true);
    expect(await isAccepted(file()['deviceKey'])).toBe(true);
    expect(await isAccepted(before['deviceKey'])).toBe(true);
  });

  it('makes new keys next to a good file when told to, and the old ones stay valid', async () => {
    await ensure('never');
    const before = file();
    expect(await ensure('always')).toMatchObject({ created: false, issued: true });
    expect(file()['adminKey']).not.toBe(before['adminKey']);
    expect(await isAccepted(file()['adminKey'])).toBe(true);
    expect(await isAccepted(before['adminKey'])).toBe(true);
  });

  it('makes the device again when it is gone', async () => {
    await ensure('when missing');
    const registry = createTestRegistry(test.database);
    await registry.devices.remove({ organizationId: 1, actor: 'test' }, 'first');
    rmSync(join(dataDir, 'credentials.json'));
    await ensure('when missing');
    expect(await isAccepted(file()['deviceKey'])).toBe(true);
  });

  it('takes a broken file, and a file of another database, as missing', async () => {
    await ensure('when missing');
    const foreign = { ...file(), adminKey: 'pba_A1b2C3d4_000000000000000000000000000000000' };
    for (const content of ['{"organiz', '{}', JSON.stringify(foreign)]) {
      writeFileSync(join(dataDir, 'credentials.json'), content);
      expect(await ensure('never')).toMatchObject({ credentials: null });
      expect(await ensure('when missing')).toMatchObject({ issued: true });
      expect(await isAccepted(file()['adminKey'])).toBe(true);
    }
  });

  it('makes no keys for organizations that others have made', async () => {
    await createOrganization(test.database, 'acme');
    expect(await ensure('when missing')).toEqual({
      created: false,
      issued: false,
      credentials: null,
    });
  });

  it('fails with the name of the file when the folder cannot be written', async () => {
    writeFileSync(dataDir, 'not a folder');
    await expect(ensure('when missing')).rejects.toThrow(FileUnusableError);
  });
});

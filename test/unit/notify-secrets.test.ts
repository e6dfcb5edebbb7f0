import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readSecretKeys, Secrets } from '../../rules/notify/secrets.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'puback-secrets-'));
});
afterEach(() => rm(folder, { recursive: true }));

const none = { SECRETS_KEY: '', SECRETS_KEY_FILE: '' };

describe('secrets of receivers', () => {
  it('are what they were, whatever they are', () => {
    const secrets = new Secrets([randomBytes(32)]);
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), fc.uuid(), (secret, receiverId) => {
        const sealed = secrets.seal(receiverId, secret);
        expect(secrets.open(receiverId, sealed)).toBe(secret);
        expect(sealed.secret.length).toBe(28 + Buffer.byteLength(secret));
      }),
    );
  });

  it('cannot be read in the row of another receiver, when changed, or without their key', () => {
    const secrets = new Secrets([randomBytes(32)]);
    const sealed = secrets.seal('a', 'hidden');
    expect(() => secrets.open('b', sealed)).toThrow('it is not what was written');
    for (let at = 0; at < sealed.secret.length; at += 1) {
      const changed = Buffer.from(sealed.secret);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(() => secrets.open('a', { ...sealed, secret: changed })).toThrow();
    }
    const short = { ...sealed, secret: sealed.secret.subarray(0, 20) };
    expect(() => secrets.open('a', short)).toThrow('it is not what was written');
    const other = new Secrets([randomBytes(32)]);
    expect(() => other.open('a', sealed)).toThrow(`key ${sealed.keyId} is not in SECRETS_KEY`);
  });

  it('have a nonce of their own each time', () => {
    const secrets = new Secrets([randomBytes(32)]);
    const all = Array.from({ length: 100 }, () => secrets.seal('a', 'x').secret.toString('hex'));
    expect(new Set(all).size).toBe(100);
  });

  it('are encrypted with the first key and read with every key', () => {
    const [old, fresh] = [randomBytes(32), randomBytes(32)];
    const sealed = new Secrets([old]).seal('a', 'kept');
    const both = new Secrets([fresh, old]);
    expect(both.open('a', sealed)).toBe('kept');
    expect(both.seal('a', 'kept').keyId).toBe(both.keyId);
    expect(both.keyId).not.toBe(sealed.keyId);
  });
});

describe('keys of secrets', () => {
  it('are made at the first start, for the owner alone, and read again', async () => {
    const settings = { ...none, DATA_DIR: join(folder, 'data') };
    const [made] = await readSecretKeys(settings);
    expect(made).toHaveLength(32);
    const path = join(folder, 'data', 'secrets.key');
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(await readFile(path, 'utf8')).toBe(`${made?.toString('base64')}\n`);
    expect(await readSecretKeys(settings)).toEqual([made]);
  });

  it('come from the setting, then from its file, then from the data folder', async () => {
    const [first, second] = [randomBytes(32), randomBytes(32)];
    const path = join(folder, 'keys');
    await writeFile(path, `${second.toString('base64')}\n${first.toString('base64')}\n`);
    const file = { SECRETS_KEY: '', SECRETS_KEY_FILE: path, DATA_DIR: folder };
    expect(await readSecretKeys(file)).toEqual([second, first]);
    const text = `${first.toString('base64')},${second.toString('base64')}`;
    expect(await readSecretKeys({ ...file, SECRETS_KEY: text })).toEqual([first, second]);
  });

  it('that are none are refused without being told', async () => {
    const bad = { ...none, SECRETS_KEY: 'not-a-key', DATA_DIR: folder };
    await expect(readSecretKeys(bad)).rejects.toThrow('SECRETS_KEY must have keys of 32 bytes');
    await expect(readSecretKeys(bad)).rejects.not.toThrow('not-a-key');
    const short = { ...none, SECRETS_KEY: randomBytes(16).toString('base64'), DATA_DIR: folder };
    await expect(readSecretKeys(short)).rejects.toThrow('32 bytes');
    const gone = { ...none, SECRETS_KEY_FILE: join(folder, 'gone'), DATA_DIR: folder };
    await expect(readSecretKeys(gone)).rejects.toThrow('gone');
    await writeFile(join(folder, 'secrets.key'), 'junk');
    await chmod(join(folder, 'secrets.key'), 0o600);
    await expect(readSecretKeys({ ...none, DATA_DIR: folder })).rejects.toThrow('32 bytes');
  });
});

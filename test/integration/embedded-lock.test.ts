import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { lockDataFolder } from '../../drizzle/data-folder-lock.ts';
import { DataFolderInUseError } from '../../errors.ts';
import { startHolder, type Holder } from '../support/embedded-program.ts';

let folder = '';
let holders: Holder[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'puback-lock-'));
});
afterEach(async () => {
  for (const holder of holders) await holder.end('SIGKILL');
  holders = [];
  await rm(folder, { recursive: true, force: true });
});

async function hold(): Promise<Holder> {
  const holder = await startHolder(join(folder, 'data'), { lockOnly: true });
  holders.push(holder);
  return holder;
}

for (const [mechanism, command] of [
  ['the flock command', 'flock'],
  ['an abstract socket', 'no-such-command'],
] as const) {
  describe(`lockDataFolder with ${mechanism}`, () => {
    it(`refuses a second lock and names the holder (${mechanism})`, async () => {
      const release = await lockDataFolder(folder, command);
      const refused = lockDataFolder(folder, command);
      await expect(refused).rejects.toThrow(DataFolderInUseError);
      await expect(refused).rejects.toThrow(`process ${process.pid};`);
      await release();
    });

    it(`can be taken again after release, which may be called twice (${mechanism})`, async () => {
      const release = await lockDataFolder(folder, command);
      await release();
      await release();
      const again = await lockDataFolder(folder, command);
      await again();
    });

    it(`lets exactly one of 20 simultaneous callers in (${mechanism})`, async () => {
      const calls = Array.from({ length: 20 }, () => lockDataFolder(folder, command));
      const results = await Promise.allSettled(calls);
      const taken = results.filter((result) => result.status === 'fulfilled');
      expect(taken).toHaveLength(1);
      await taken[0]?.value();
    });
  });
}

describe('lockDataFolder between programs', () => {
  it('lets exactly one of five fresh programs in', async () => {
    const started = await Promise.all([hold(), hold(), hold(), hold(), hold()]);
    const refused = started.filter(({ line }) => line.name === 'DataFolderInUseError');
    expect(refused).toHaveLength(4);
    const winner = started.find(({ line }) => line.failure === undefined);
    expect(refused[0]?.line.failure).toContain(`process ${winner?.child.pid};`);
  });

  it('is free at once after SIGKILL of the holder, whatever its file says', async () => {
    const first = await hold();
    await first.end('SIGKILL');
    expect(await readFile(join(folder, 'data', 'puback.lock'), 'utf8')).not.toBe('');
    const release = await lockDataFolder(join(folder, 'data'));
    await release();
  });

  it('names a folder that cannot be made', async () => {
    const path = join(folder, 'file');
    await writeFile(path, '');
    for (const unusable of [join(path, 'data'), '/proc/puback/data']) {
      await expect(lockDataFolder(unusable)).rejects.toMatchObject({ code: 'FILE_UNUSABLE' });
    }
  });
});

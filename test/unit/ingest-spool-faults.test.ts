import { readdirSync } from 'node:fs';
import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import { REAL_FILES, type SpoolFiles } from '../../ingest/spool/spool-files.ts';
import type { Spool } from '../../ingest/spool/spool.ts';
import { eventually } from '../support/eventually.ts';
import {
  appendAll,
  faultyFiles,
  noFaults,
  numbersOf,
  openTestSpool,
  readAll,
  spoolRecords,
  withSpoolFolder,
  type SpoolFaults,
} from '../support/spool.ts';

const FAILED = { code: 'SPOOL_FAILED', retryable: true };

/** Opens a spool whose log lines are kept and whose faults can be set. */
async function withFaults(
  use: (spool: Spool, faults: SpoolFaults, told: () => string[], folder: string) => Promise<void>,
): Promise<void> {
  const faults = noFaults();
  const lines: string[] = [];
  const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(line) });
  const told = () => lines.map((line) => (JSON.parse(line) as { msg: string }).msg);
  await withSpoolFolder(async (folder) => {
    const spool = await openTestSpool(folder, { files: faultyFiles(faults), log });
    await use(spool, faults, told, folder);
    await spool.close();
  });
}

/** The numbers that a spool opened anew finds. */
async function numbersAfterRestart(folder: string, files?: SpoolFiles): Promise<number[]> {
  const spool = await openTestSpool(folder, files === undefined ? {} : { files });
  const numbers = numbersOf(await readAll(spool));
  await spool.close();
  return numbers;
}

describe('spool on a bad disk', () => {
  it('writes all when the disk takes a few bytes at a time', async () => {
    await withFaults(async (spool, faults) => {
      faults.writeBytesMax = 7;
      await appendAll(spool, spoolRecords(0, 5));
      expect(numbersOf(await readAll(spool))).toEqual([0, 1, 2, 3, 4]);
    });
  });

  it('acknowledges nothing on a full disk, says so once, and goes on when there is room', async () => {
    await withFaults(async (spool, faults, told, folder) => {
      await appendAll(spool, spoolRecords(0, 3));
      faults.bytesFree = 150;
      const both = [appendAll(spool, spoolRecords(10, 3)), appendAll(spool, spoolRecords(20, 3))];
      expect((await Promise.allSettled(both)).map(({ status }) => status)).toEqual([
        'rejected',
        'rejected',
      ]);
      expect(spool.isFailing).toBe(true);
      expect(spool.hasRoomFor(1)).toBe(false);
      expect(spool.totals.refused).toEqual({ full: 0, failed: 6 });
      await expect(appendAll(spool, spoolRecords(30, 3))).rejects.toMatchObject(FAILED);
      // Several attempts meanwhile.
      faults.bytesFree = 0;
      await new Promise((resolve) => setTimeout(resolve, 60));
      expect(spool.isFailing).toBe(true);
      expect(numbersOf(await readAll(spool))).toEqual([0, 1, 2]);
      const woken = new Promise<void>((resolve) => spool.whenRoom(resolve));
      faults.bytesFree = Infinity;
      await woken;
      expect(spool.isFailing).toBe(false);
      await appendAll(spool, spoolRecords(40, 2));
      expect(numbersOf(await readAll(spool))).toEqual([40, 41]);
      expect(spool.pendingMessages).toBe(5);
      expect(told()).toEqual([
        'spool cannot write, nothing more is taken in there',
        'spool writes again',
      ]);
      await spool.close();
      expect(await numbersAfterRestart(folder)).toEqual([0, 1, 2, 40, 41]);
    });
  });

  it('does not take the disk for mended while it takes less than what failed', async () => {
    await withFaults(async (spool, faults) => {
      faults.bytesFree = 100;
      await expect(appendAll(spool, spoolRecords(0, 100))).rejects.toMatchObject(FAILED);
      for (let round = 0; round < 5; round += 1) {
        faults.bytesFree = 500;
        await new Promise((resolve) => setTimeout(resolve, 15));
        expect(spool.isFailing).toBe(true);
      }
    });
  });

  it.each([
    ['a sync that fails', { datasync: ['EIO'] }],
    ['a write that fails', { write: ['EIO'] }],
    ['a sync that fails, and a cut that fails', { datasync: ['EIO'], truncate: ['EIO'] }],
  ])('reads nothing back of what %s, and leaves the file', async (_, next) => {
    await withFaults(async (spool, faults, _told, folder) => {
      await appendAll(spool, spoolRecords(0, 3));
      const before = readdirSync(folder);
      Object.assign(faults.next, structuredClone(next));
      await expect(appendAll(spool, spoolRecords(10, 3))).rejects.toMatchObject(FAILED);
      expect(numbersOf(await readAll(spool))).toEqual([0, 1, 2]);
      await eventually('it is mended', () => !spool.isFailing);
      await appendAll(spool, spoolRecords(20, 3));
      expect(numbersOf(await readAll(spool))).toEqual([20, 21, 22]);
      spool.rewind();
      expect(numbersOf(await readAll(spool))).toEqual([0, 1, 2, 20, 21, 22]);
      expect(readdirSync(folder).filter((name) => name.endsWith('.log'))).toHaveLength(2);
      expect(before).toHaveLength(1);
      expect(spool.pendingMessages).toBe(6);
      const { position } = (await (spool.rewind(), readAll(spool)))[2] ?? {};
      expect(position?.segment).toBe(1);
    });
  });

  it('begins a file anew when its head could not be written', async () => {
    await withFaults(async (spool, faults, _told, folder) => {
      Object.assign(faults.next, { datasync: ['EIO', 'EIO', 'EIO'], unlink: ['EIO', 'EIO'] });
      await expect(appendAll(spool, spoolRecords(0, 3))).rejects.toMatchObject(FAILED);
      await eventually('it is mended', () => !spool.isFailing);
      await appendAll(spool, spoolRecords(5, 2));
      expect(numbersOf(await readAll(spool))).toEqual([5, 6]);
      await eventually(
        'what failed is removed',
        () => readdirSync(folder).filter((name) => name.endsWith('.log')).length === 1,
      );
      await spool.close();
      expect(await numbersAfterRestart(folder)).toEqual([5, 6]);
    });
  });

  it('never takes a file that is being made for one that has drained', async () => {
    await withSpoolFolder(async (folder) => {
      let release = () => {};
      const held = new Promise<void>((resolve) => (release = resolve));
      let isMaking = false;
      const files: SpoolFiles = {
        ...REAL_FILES,
        syncFolder: (path) => {
          isMaking = path === folder;
          return isMaking ? held : Promise.resolve();
        },
      };
      const spool = await openTestSpool(folder, { files, tidyMs: 1 });
      const stored = appendAll(spool, spoolRecords(0, 2));
      await eventually('the file is being made', () => isMaking);
      // Time for several looks at how far all is drained.
      await new Promise((resolve) => setTimeout(resolve, 50));
      expect(readdirSync(folder)).toEqual(['000000000001.log']);
      release();
      await stored;
      await spool.close();
      expect(await numbersAfterRestart(folder)).toEqual([0, 1]);
    });
  });

  it('says that it cannot read, skips nothing, and reads on when it can', async () => {
    await withFaults(async (spool, faults) => {
      await appendAll(spool, spoolRecords(0, 6));
      expect(numbersOf(await spool.read(2, 1000))).toEqual([0, 1]);
      faults.next.read = ['EIO', 'EIO'];
      await expect(spool.read(10, 1000)).rejects.toMatchObject(FAILED);
      await expect(spool.read(10, 1000)).rejects.toMatchObject(FAILED);
      expect(numbersOf(await readAll(spool))).toEqual([2, 3, 4, 5]);
      expect(spool.pendingMessages).toBe(6);
    });
  });

  it('drains on when its progress cannot be written', async () => {
    await withFaults(async (spool, faults, told, folder) => {
      await appendAll(spool, spoolRecords(0, 6));
      const read = await readAll(spool);
      faults.bytesFree = 0;
      spool.drained(read.slice(0, 4).map(({ position }) => position));
      await eventually('it says so', () => told().includes('spool progress not written'));
      expect(spool.pendingMessages).toBe(2);
      faults.bytesFree = Infinity;
      await eventually('it is written', () => readdirSync(folder).includes('drained'));
      await spool.close();
      expect(told()).toEqual(['spool progress not written']);
      expect(await numbersAfterRestart(folder)).toEqual([4, 5]);
    });
  });
});

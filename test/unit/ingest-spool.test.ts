import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import { FileUnusableError } from '../../errors.ts';
import type { Spool, SpoolRecord } from '../../ingest/spool/spool.ts';
import { spoolBytes } from '../../ingest/spool/spool.ts';
import { eventually } from '../support/eventually.ts';
import {
  appendAll,
  numbersOf,
  openTestSpool,
  readAll,
  spoolRecord,
  spoolRecords,
  withSpoolFolder,
} from '../support/spool.ts';

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, n) => from + n);
const segmentsOf = (folder: string) => readdirSync(folder).filter((name) => name.endsWith('.log'));
const positionsOf = (records: Awaited<ReturnType<typeof readAll>>) =>
  records.map(({ position }) => position);

describe('spool', () => {
  it('gives back what it was given, in the order of the appends, also after it was opened again', async () => {
    await withSpoolFolder(async (folder) => {
      const spool = await openTestSpool(folder);
      await Promise.all([
        appendAll(spool, spoolRecords(0, 5)),
        appendAll(spool, []),
        appendAll(spool, spoolRecords(5, 1)),
        appendAll(spool, [spoolRecord(6, { payload: Buffer.alloc(1_500_000, 7) })]),
        appendAll(spool, spoolRecords(7, 3)),
      ]);
      expect(spool.pendingMessages).toBe(10);
      const read = await readAll(spool);
      expect(read[6]?.record.payload.equals(Buffer.alloc(1_500_000, 7))).toBe(true);
      expect(read.map(({ record }) => record.seqs[0])).toEqual(range(0, 10));
      await spool.close();
      const again = await openTestSpool(folder);
      expect(again.recoveredMessages).toBe(10);
      expect(again.oldestReceivedMicros).toBe(1_700_000_000_000_000);
      const readAgain = await readAll(again, 3);
      const small = (record: SpoolRecord) => ({
        ...record,
        payload: record.payload.toString('hex'),
      });
      expect(readAgain.map(({ record }) => small(record))).toEqual(
        read.map(({ record }) => small(record)),
      );
      await again.close();
    });
  });

  it('tells of what is stored after it, in the turn in which it counts', async () => {
    await withSpoolFolder(async (folder) => {
      const spool = await openTestSpool(folder);
      const counts: number[] = [];
      const stored = [1, 2, 3].map(
        (n) =>
          new Promise<void>((resolve, reject) => {
            const onStored = () => {
              counts.push(spool.pendingMessages);
              resolve();
            };
            spool.append(spoolRecords(n * 10, n), onStored, reject);
          }),
      );
      expect(counts).toEqual([]);
      expect(spool.pendingMessages).toBe(0);
      expect(await spool.read(10, 1000)).toEqual([]);
      await Promise.all(stored);
      expect(counts).toEqual([1, 3, 6]);
      await spool.close();
    });
  });

  it('lets go of what was drained in any order, and of whole files', async () => {
    await withSpoolFolder(async (folder) => {
      const spool = await openTestSpool(folder, { segmentBytes: 1000 });
      for (let n = 0; n < 100; n += 5) await appendAll(spool, spoolRecords(n, 5));
      expect(segmentsOf(folder).length).toBeGreaterThan(5);
      const bytesBefore = spool.bytes;
      expect(bytesBefore).toBe(bytesOnDisk(folder) + 64);
      const read = await readAll(spool, 7);
      expect(numbersOf(read)).toEqual(range(0, 100));
      spool.drained(positionsOf(read.slice(50).toReversed()));
      expect(spool.pendingMessages).toBe(50);
      spool.drained(positionsOf(read.slice(40)));
      expect(spool.pendingMessages).toBe(40);
      expect(spool.pendingSequences(7)).toEqual([{ boot: 77, seqs: range(36, 100) }]);
      spool.drained(positionsOf(read));
      expect(spool.pendingMessages).toBe(0);
      expect(spool.oldestReceivedMicros).toBeNull();
      expect(spool.pendingSequences(7)).toEqual([]);
      await eventually('no file is left', () => segmentsOf(folder).length === 0);
      await eventually('no byte is counted', () => spool.bytes === 0);
      await appendAll(spool, spoolRecords(100, 2));
      expect(numbersOf(await readAll(spool))).toEqual([100, 101]);
      expect(spool.totals).toMatchObject({ appendedMessages: 102, drainedMessages: 100 });
      await spool.close();
    });
  });

  it('reads again from the oldest that is not drained after a rewind', async () => {
    await withSpoolFolder(async (folder) => {
      const spool = await openTestSpool(folder, { segmentBytes: 1000 });
      for (let n = 0; n < 40; n += 4) await appendAll(spool, spoolRecords(n, 4));
      const read = await readAll(spool);
      spool.drained(
        positionsOf([...read.slice(0, 10), ...read.slice(12, 14), ...read.slice(30, 32)]),
      );
      spool.rewind();
      const left = [10, 11, ...range(14, 30), ...range(32, 40)];
      expect(numbersOf(await readAll(spool, 3))).toEqual(left);
      // A rewind while a read is under way.
      spool.rewind();
      const first = spool.read(5, 1_000_000);
      spool.rewind();
      expect(numbersOf([...(await first), ...(await readAll(spool))])).toEqual(left);
      await spool.close();
    });
  });

  it('drains after a restart what was not drained before, and at most a little more', async () => {
    await withSpoolFolder(async (folder) => {
      const spool = await openTestSpool(folder, { segmentBytes: 1000 });
      for (let n = 0; n < 40; n += 4) await appendAll(spool, spoolRecords(n, 4));
      const read = await readAll(spool);
      spool.drained(positionsOf(read.slice(0, 22)));
      await spool.close();
      const again = await openTestSpool(folder);
      expect(again.recoveredMessages).toBe(18);
      expect(again.pendingSequences(7)).toEqual([{ boot: 77, seqs: range(22, 40) }]);
      await appendAll(again, spoolRecords(40, 1));
      const readAgain = await readAll(again);
      expect(numbersOf(readAgain)).toEqual(range(22, 41));
      again.drained(positionsOf(readAgain));
      await again.close();
      expect(segmentsOf(folder)).toEqual([]);
      const empty = await openTestSpool(folder);
      expect(empty.recoveredMessages).toBe(0);
      await appendAll(empty, spoolRecords(41, 1));
      expect(numbersOf(await readAll(empty))).toEqual([41]);
      await empty.close();
    });
  });

  it('does not take the progress of one segment for that of another', async () => {
    await withSpoolFolder(async (folder) => {
      const spool = await openTestSpool(folder);
      await appendAll(spool, spoolRecords(0, 4));
      spool.drained(positionsOf(await readAll(spool)).slice(0, 3));
      await spool.close();
      const drained = readFileSync(join(folder, 'drained'));
      const [name = ''] = segmentsOf(folder);
      const other = await openTestSpool(`${folder}-other`);
      await appendAll(other, spoolRecords(10, 4));
      await other.close();
      writeFileSync(join(folder, name), readFileSync(join(`${folder}-other`, name)));
      const mixed = await openTestSpool(folder);
      expect(numbersOf(await readAll(mixed))).toEqual([10, 11, 12, 13]);
      await mixed.close();
      // Damaged progress is none.
      writeFileSync(join(folder, 'drained'), drained.subarray(0, 20));
      const unknown = await openTestSpool(folder);
      expect(unknown.recoveredMessages).toBe(4);
      await unknown.close();
    });
  });

  it('tells the numbers that wait of a device with a boot, and of no other', async () => {
    await withSpoolFolder(async (folder) => {
      const spool = await openTestSpool(folder);
      await appendAll(spool, [
        spoolRecord(1),
        spoolRecord(2, { boot: null }),
        spoolRecord(3, { deviceId: 8, seqs: [3, 9] }),
        spoolRecord(4, { seqs: [] }),
      ]);
      expect(spool.pendingSequences(7)).toEqual([{ boot: 77, seqs: [1] }]);
      expect(spool.pendingSequences(8)).toEqual([{ boot: 77, seqs: [3, 9] }]);
      expect(spool.pendingSequences(9)).toEqual([]);
      await spool.close();
    });
  });

  it.skipIf(process.platform === 'win32')('keeps its files to their owner', async () => {
    await withSpoolFolder(async (folder) => {
      await mkdir(folder, { mode: 0o755 });
      const spool = await openTestSpool(folder);
      await appendAll(spool, spoolRecords(0, 2));
      spool.drained(positionsOf(await readAll(spool)).slice(0, 1));
      await spool.close();
      expect(statSync(folder).mode & 0o777).toBe(0o700);
      const modes = readdirSync(folder).map((name) => statSync(join(folder, name)).mode & 0o777);
      expect(modes).toEqual([0o600, 0o600]);
    });
  });

  it('is not opened where it cannot be, and not over files of another format', async () => {
    await withSpoolFolder(async (folder) => {
      const spool = await openTestSpool(folder);
      await appendAll(spool, spoolRecords(0, 2));
      await spool.close();
      const path = join(folder, segmentsOf(folder)[0] ?? '');
      const bytes = readFileSync(path);
      const { crc32 } = await import('node:zlib');
      bytes.writeUInt32LE(2, 8);
      bytes.writeUInt32LE(crc32(bytes.subarray(0, 28)), 28);
      writeFileSync(path, bytes);
      await expect(openTestSpool(folder)).rejects.toThrow(/format 2/);
      await expect(openTestSpool(path)).rejects.toThrow(FileUnusableError);
    });
  });
});

describe('bounds of the spool', () => {
  it('refuse what does not fit, and tell when there is room again', async () => {
    await withSpoolFolder(async (folder) => {
      const lines: string[] = [];
      const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(line) });
      const bytesMax = 4000;
      const spool = await openTestSpool(folder, { bytesMax, log });
      const record = spoolRecord(100);
      let stored = 0;
      while (spool.hasRoomFor(spoolBytes(record))) {
        await appendAll(spool, [record]);
        stored += 1;
        expect(bytesOnDisk(folder) + 64).toBeLessThanOrEqual(bytesMax);
      }
      expect(stored).toBeGreaterThan(30);
      await expect(appendAll(spool, [record])).rejects.toMatchObject({ code: 'SPOOL_FULL' });
      await expect(appendAll(spool, spoolRecords(0, 100))).rejects.toMatchObject({
        code: 'SPOOL_FULL',
      });
      expect(spool.isFull).toBe(true);
      expect(spool.totals.refused).toEqual({ full: 101, failed: 0 });
      let wakes = 0;
      spool.whenRoom(() => (wakes += 1));
      const read = await readAll(spool);
      expect(read.length).toBe(stored);
      spool.drained(positionsOf(read));
      await eventually('it wakes', () => wakes === 1);
      expect(spool.isFull).toBe(false);
      await appendAll(spool, [record]);
      await spool.close();
      const told = lines.map((line) => (JSON.parse(line) as { msg: string }).msg);
      expect(told).toEqual([
        'spool is full, nothing more is taken in there',
        'spool has room again',
      ]);
    });
  });

  it('hold whatever is appended and drained', { timeout: 60_000 }, async () => {
    const steps = fc.array(
      fc.oneof(
        fc.record({ append: fc.integer({ min: 1, max: 30 }), bytes: fc.nat(400) }),
        fc.record({ drain: fc.integer({ min: 1, max: 60 }) }),
        fc.constant('restart' as const),
      ),
      { maxLength: 25 },
    );
    await fc.assert(
      fc.asyncProperty(steps, async (list) =>
        withSpoolFolder((folder) => followModel(folder, list)),
      ),
      { numRuns: 40 },
    );
  });

  it('take nothing when they are 0, and what is there is drained all the same', async () => {
    await withSpoolFolder(async (folder) => {
      const off = await openTestSpool(folder, { bytesMax: 0 });
      expect(off.hasRoomFor(10)).toBe(false);
      await expect(appendAll(off, spoolRecords(0, 1))).rejects.toMatchObject({
        code: 'SPOOL_FULL',
      });
      await off.close();
      expect(() => readdirSync(folder)).toThrow('ENOENT');
      const on = await openTestSpool(folder);
      await appendAll(on, spoolRecords(0, 3));
      await on.close();
      await expect(appendAll(on, spoolRecords(3, 1))).rejects.toMatchObject({
        code: 'SPOOL_FAILED',
      });
      const draining = await openTestSpool(folder, { bytesMax: 0 });
      const read = await readAll(draining);
      expect(numbersOf(read)).toEqual([0, 1, 2]);
      draining.drained(positionsOf(read));
      await draining.close();
      expect(segmentsOf(folder)).toEqual([]);
    });
  });
});

type Step = { append: number; bytes: number } | { drain: number } | 'restart';

/** Does the steps to a spool and to a plain list, and compares. */
async function followModel(folder: string, steps: readonly Step[]): Promise<void> {
  const limits = { bytesMax: 20_000, segmentBytes: 2000, tidyMs: 1 };
  let spool = await openTestSpool(folder, limits);
  const pending: number[] = [];
  let next = 0;
  for (const step of steps) {
    if (step === 'restart') {
      await spool.close();
      spool = await openTestSpool(folder, limits);
    } else if ('drain' in step) {
      spool.rewind();
      const read = await spool.read(step.drain, 100_000);
      expect(numbersOf(read)).toEqual(pending.splice(0, read.length));
      spool.drained(positionsOf(read));
    } else {
      const numbers = range(next, next + step.append);
      next += step.append;
      if (await takes(spool, numbers, step.bytes)) pending.push(...numbers);
    }
    expect(spool.pendingMessages).toBe(pending.length);
    expect(bytesOnDisk(folder)).toBeLessThanOrEqual(limits.bytesMax);
  }
  spool.rewind();
  expect(numbersOf(await readAll(spool, 11))).toEqual(pending);
  await spool.close();
}

function takes(spool: Spool, numbers: readonly number[], bytes: number): Promise<boolean> {
  const padding = 'x'.repeat(bytes);
  const records = numbers.map((n) => spoolRecord(n, { topic: padding }));
  return appendAll(spool, records).then(
    () => true,
    (cause: { code?: unknown }) => {
      expect(cause.code).toBe('SPOOL_FULL');
      return false;
    },
  );
}

function bytesOnDisk(folder: string): number {
  return readdirSync(folder)
    .filter((name) => !name.startsWith('drained'))
    .reduce((sum, name) => sum + sizeOf(join(folder, name)), 0);
}

/** 0 for a file that was removed meanwhile. */
function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

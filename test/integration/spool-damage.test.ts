import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
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

describe('what a crash or a bad disk leaves of a spool', () => {
  it('is cut off at any byte, and all before it is there', { timeout: 60_000 }, async () => {
    await withSpoolFolder(async (folder) => {
      const spool = await openTestSpool(folder);
      await appendAll(spool, [
        spoolRecord(0),
        spoolRecord(1, { name: 'é', seqs: [] }),
        spoolRecord(2),
      ]);
      const ends = (await readAll(spool)).map(({ position }) => position.end);
      await spool.close();
      const path = join(folder, segmentsOf(folder)[0] ?? '');
      const bytes = readFileSync(path);
      for (let cut = 0; cut < bytes.length; cut += 1) {
        writeFileSync(path, bytes.subarray(0, cut));
        rmSync(join(folder, 'drained'), { force: true });
        const again = await openTestSpool(folder);
        const whole = ends.filter((end) => end <= cut).length;
        expect(numbersOf(await readAll(again)), `cut at ${cut}`).toEqual(range(0, whole));
        expect(again.totals.tornBytes).toBe(cut - (ends[whole - 1] ?? (cut < 32 ? 0 : 32)));
        expect(again.totals.damagedBytes).toBe(0);
        await again.close();
      }
    });
  });

  it('costs a record and no other when a byte of it is turned', { timeout: 60_000 }, async () => {
    await withSpoolFolder(async (folder) => {
      const { bytes, path, ends } = await twoSegments(folder);
      for (let at = 32; at < bytes.length; at += 1) {
        const turned = Buffer.from(bytes);
        turned[at] = (turned[at] ?? 0) ^ 0x10;
        writeFileSync(path, turned);
        const hit = ends.findIndex((end) => at < end);
        const again = await openTestSpool(folder);
        const read = await readAll(again, 2);
        expect(numbersOf(read), `turned at ${at}`).toEqual(range(0, 8).filter((n) => n !== hit));
        expect(again.totals.damagedBytes + again.totals.tornBytes).toBeGreaterThan(0);
        expect(again.pendingMessages).toBe(7);
        await again.close();
        writeFileSync(path, bytes);
      }
    });
  });

  it('never brings back anything but what was written, whatever was done to a file', async () => {
    await withSpoolFolder(async (folder) => {
      const { bytes, path } = await twoSegments(folder);
      const change = fc.record({
        at: fc.nat(bytes.length - 1),
        bytes: fc.uint8Array({ maxLength: 90 }),
      });
      await fc.assert(
        fc.asyncProperty(fc.array(change, { maxLength: 4 }), async (changes) => {
          const changed = Buffer.from(bytes);
          for (const { at, bytes: put } of changes)
            changed.set(put.subarray(0, bytes.length - at), at);
          writeFileSync(path, changed);
          const again = await openTestSpool(folder);
          const read = await readAll(again);
          const numbers = numbersOf(read);
          expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
          expect(numbers).toEqual(expect.arrayContaining([5, 6, 7]));
          expect(new Set(numbers).size).toBe(numbers.length);
          expect(again.pendingMessages).toBe(numbers.length);
          await again.close();
          for (const name of readdirSync(folder)) {
            if (name.endsWith('.damaged')) rmSync(join(folder, name));
          }
        }),
        { numRuns: 100 },
      );
    });
  });

  it('is drained past damage, and the file goes with the rest of it', async () => {
    await withSpoolFolder(async (folder) => {
      const { bytes, path, ends } = await twoSegments(folder);
      const turned = Buffer.from(bytes);
      for (const end of [ends[1] ?? 0, ends[4] ?? 0]) turned[end - 1] = 0xff;
      writeFileSync(path, turned);
      const again = await openTestSpool(folder);
      const read = await readAll(again);
      expect(numbersOf(read)).toEqual([0, 2, 3, 5, 6, 7]);
      again.drained(positionsOf(read));
      await again.close();
      expect(segmentsOf(folder)).toEqual([]);
    });
  });

  it('is told and counted when it comes while the spool is open', async () => {
    await withSpoolFolder(async (folder) => {
      const { bytes, path, ends } = await twoSegments(folder);
      for (const hits of [[2], [4], [1, 2, 4], [0, 1, 2, 3, 4]]) {
        writeFileSync(path, bytes);
        const lines: string[] = [];
        const log = pino({ level: 'error' }, { write: (line: string) => void lines.push(line) });
        const again = await openTestSpool(folder, { log });
        const turned = Buffer.from(bytes);
        for (const hit of hits) turned[(ends[hit] ?? 0) - 1] = 0xff;
        writeFileSync(path, turned);
        const left = range(0, 8).filter((n) => !hits.includes(n));
        expect(numbersOf(await readAll(again))).toEqual(left);
        expect(again.pendingMessages).toBe(left.length);
        again.rewind();
        expect(numbersOf(await readAll(again, 1))).toEqual(left);
        expect(again.pendingMessages).toBe(left.length);
        const lost = lines.map((line) => (JSON.parse(line) as { messages: number }).messages);
        expect(lost.reduce((sum, messages) => sum + messages, 0)).toBe(hits.length);
        await again.close();
      }
      const last = await openTestSpool(folder);
      last.drained(positionsOf(await readAll(last)));
      await last.close();
      expect(segmentsOf(folder)).toEqual([]);
    });
  });

  it('is set aside when the head of a file is damaged, and its room is counted', async () => {
    await withSpoolFolder(async (folder) => {
      const { bytes, path } = await twoSegments(folder);
      bytes[9] = 0xff;
      writeFileSync(path, bytes);
      const again = await openTestSpool(folder);
      expect(numbersOf(await readAll(again))).toEqual([5, 6, 7]);
      expect(again.totals.damagedBytes).toBe(bytes.length);
      expect(readdirSync(folder)).toContain('000000000001.damaged');
      expect(again.bytes).toBe(bytesOnDisk(folder) + 64);
      await again.close();
      const later = await openTestSpool(folder);
      expect(later.bytes).toBe(bytesOnDisk(folder) + 64);
      expect(later.recoveredMessages).toBe(3);
      await later.close();
    });
  });
});

/** A spool of two files, of five records and of three; where the records of the first end. */
async function twoSegments(folder: string) {
  const first = await openTestSpool(folder);
  await appendAll(first, spoolRecords(0, 5));
  const ends = (await readAll(first)).map(({ position }) => position.end);
  await first.close();
  const path = join(folder, segmentsOf(folder)[0] ?? '');
  const second = await openTestSpool(folder);
  await appendAll(second, spoolRecords(5, 3));
  await second.close();
  return { bytes: readFileSync(path), path, ends };
}

function bytesOnDisk(folder: string): number {
  return readdirSync(folder)
    .filter((name) => !name.startsWith('drained'))
    .reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
}

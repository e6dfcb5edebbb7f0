import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import {
  appendAll,
  numbersOf,
  openTestSpool,
  readAll,
  spoolRecords,
  withSpoolFolder,
} from '../support/spool.ts';

const ROUNDS = 20;
const WRITER = fileURLToPath(new URL('../support/spool-writer.ts', import.meta.url));

describe('spool on disk', () => {
  it(
    'has all that it told as stored, in order, when killed at any moment [D-01]',
    { timeout: 180_000 },
    async () => {
      await withSpoolFolder(async (folder) => {
        let stored: number[] = [];
        let acknowledged = 0;
        for (let round = 0; round < ROUNDS; round += 1) {
          const lines = await writeUntilKilled(folder, (round + 1) * 10_000_000, round);
          let drainedTo = -1;
          for (const line of lines) {
            const [word, from = 0, count = 0] = line
              .split(' ')
              .map((part, n) => (n ? +part : part));
            if (word === 'draining') drainedTo = Number(from);
            if (word !== 'stored') continue;
            acknowledged += Number(count);
            for (let n = 0; n < Number(count); n += 1) stored.push(Number(from) + n);
          }
          const spool = await openTestSpool(folder);
          const read = await readAll(spool, 1000);
          const numbers = numbersOf(read);
          expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
          const there = new Set(numbers);
          expect(there.size).toBe(numbers.length);
          expect(spool.pendingMessages).toBe(numbers.length);
          stored = stored.filter((n) => n > drainedTo);
          expect(stored.filter((n) => !there.has(n))).toEqual([]);
          if (round % 4 === 3) {
            spool.drained(read.map(({ position }) => position));
            stored = [];
          }
          await spool.close();
        }
        expect(acknowledged).toBeGreaterThan(ROUNDS * 1000);
      });
    },
  );

  it('takes nothing on a full disk, and goes on by itself when there is room [D-06]', async (context) => {
    await withSpoolFolder(async (folder) => {
      const mount = join(folder, '..', 'small-disk');
      if (!mountSmallDisk(mount)) {
        process.stderr.write('SKIPPED: the full disk needs root and mount -t tmpfs\n');
        context.skip('needs root and mount -t tmpfs');
      }
      try {
        await fillAndMend(mount);
      } finally {
        execFileSync('umount', ['-l', mount], { stdio: 'ignore' });
      }
    });
  });
});

async function fillAndMend(mount: string): Promise<void> {
  const spool = await openTestSpool(join(mount, 'spool'), { segmentBytes: 100_000 });
  let stored = 0;
  let refusal: unknown = null;
  while (refusal === null) {
    await appendAll(spool, spoolRecords(stored, 1000)).then(
      () => (stored += 1000),
      (cause: unknown) => (refusal = cause),
    );
  }
  expect(refusal).toMatchObject({ code: 'SPOOL_FAILED' });
  expect(String((refusal as Error).message)).toContain('ENOSPC');
  expect(stored).toBeGreaterThan(5000);
  expect(spool.isFailing).toBe(true);
  const woken = new Promise<void>((resolve) => spool.whenRoom(resolve));
  rmSync(join(mount, 'ballast'));
  await woken;
  await appendAll(spool, spoolRecords(stored, 1000));
  const wanted = Array.from({ length: stored + 1000 }, (_, n) => n);
  expect(numbersOf(await readAll(spool, 1000))).toEqual(wanted);
  await spool.close();
  const again = await openTestSpool(join(mount, 'spool'));
  expect(numbersOf(await readAll(again, 1000))).toEqual(wanted);
  await again.close();
}

/** A disk of two mebibytes, half of it taken by a file `ballast`. */
function mountSmallDisk(path: string): boolean {
  mkdirSync(path, { recursive: true });
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', path], { stdio: 'ignore' });
  } catch {
    return false;
  }
  expect(readFileSync('/proc/mounts', 'utf8')).toContain(path);
  writeFileSync(join(path, 'ballast'), Buffer.alloc(1_000_000));
  return true;
}

/** @returns the lines that were on stdout when the writer was killed, at a moment told by chance. */
async function writeUntilKilled(folder: string, first: number, round: number): Promise<string[]> {
  const writer = spawn(process.execPath, ['--import', 'tsx', WRITER, folder, String(first)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(writer, 'exit');
  const lines: string[] = [];
  const reader = createInterface({ input: writer.stdout });
  reader.on('line', (line) => lines.push(line));
  // Every fifth time it may still be opening the spool.
  if (round % 5 !== 4) await once(reader, 'line');
  const waitMs = Math.random() * (round % 5 === 4 ? 900 : 300);
  await new Promise((resolve) => setTimeout(resolve, waitMs));
  writer.kill('SIGKILL');
  const [, signal] = (await exited) as [number | null, string | null];
  expect(signal).toBe('SIGKILL');
  if (!writer.stdout.readableEnded) await once(reader, 'close');
  return lines;
}

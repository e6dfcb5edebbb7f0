import { appendFile, mkdir, truncate } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { segmentPath } from '../../ingest/spool/segment.ts';
import { waitingBytes } from '../../ingest/spool/waiting-bytes.ts';
import {
  appendAll,
  openTestSpool,
  readAll,
  spoolRecords,
  withSpoolFolder,
} from '../support/spool.ts';

describe('the bytes that wait in the folder of a spool', () => {
  it('are none without a folder, and in one that nothing was put into', async () => {
    await withSpoolFolder(async (folder) => {
      expect(await waitingBytes(folder)).toBe(0);
      await (await openTestSpool(folder)).close();
      expect(await waitingBytes(folder)).toBe(0);
    });
  });

  it('are those of messages that are not drained, over several segments', async () => {
    await withSpoolFolder(async (folder) => {
      const spool = await openTestSpool(folder, { segmentBytes: 65_536 });
      for (let from = 0; from < 1000; from += 100) await appendAll(spool, spoolRecords(from, 100));
      const all = await waitingBytes(folder);
      expect(all).toBeGreaterThan(80_000);
      const records = await readAll(spool);
      spool.drained(records.slice(0, 500).map(({ position }) => position));
      await spool.close();
      const rest = await waitingBytes(folder);
      expect(rest).toBeGreaterThan(all * 0.4);
      expect(rest).toBeLessThan(all * 0.6);
      const again = await openTestSpool(folder);
      again.drained((await readAll(again)).map(({ position }) => position));
      await again.close();
      expect(await waitingBytes(folder)).toBe(0);
    });
  });

  it('are not those of a segment that was torn, and those of one that is damaged', async () => {
    await withSpoolFolder(async (folder) => {
      await mkdir(folder, { recursive: true });
      await appendFile(segmentPath(folder, 1), Buffer.alloc(500));
      await truncate(segmentPath(folder, 1), 20);
      expect(await waitingBytes(folder)).toBe(0);
      await appendFile(segmentPath(folder, 2, 'damaged'), Buffer.alloc(500, 1));
      expect(await waitingBytes(folder)).toBe(500 - 32);
    });
  });
});

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import {
  createDiskPersistence,
  type DiskPersistence,
} from '../../broker/store/disk-persistence.ts';
import type { DiskStore } from '../../broker/store/disk-store.ts';
import { openTestStore, withFolder } from '../support/disk-store.ts';

const ROUNDS = 12;
const WRITER = fileURLToPath(new URL('../support/disk-store-writer.ts', import.meta.url));
const FULL_DISK = fileURLToPath(new URL('../support/disk-store-full.ts', import.meta.url));

describe('session store on disk', () => {
  it(
    'loses nothing that it acknowledged when killed at any moment',
    { timeout: 120_000 },
    async () => {
      await withFolder(async (folder) => {
        const acknowledged: string[] = [];
        for (let round = 0; round < ROUNDS; round += 1) {
          acknowledged.push(...(await writeUntilKilled(folder, round)));
          const store = await openTestStore(folder);
          const persistence = createDiskPersistence(store);
          await persistence.setup({ id: 'another' });
          expect(await lost(store, persistence, acknowledged)).toEqual([]);
          await persistence.destroy();
          await store.close();
        }
        expect(acknowledged.length).toBeGreaterThan(ROUNDS * 5);
      });
    },
  );

  it.skipIf(process.platform === 'win32')(
    'rejects on a full disk, goes on in memory, and mends itself',
    { timeout: 60_000 },
    async () => {
      await withFolder(async (folder) => {
        const command = 'ulimit -f 4096; exec "$0" --import tsx "$1" "$2"';
        const args = ['-c', command, process.execPath, FULL_DISK, folder];
        const { stdout } = await promisify(execFile)('sh', args, { timeout: 50_000 });
        const result = JSON.parse(stdout) as Record<string, unknown>;
        expect(result).toMatchObject({
          codes: ['SESSION_STORE_FAILED'],
          messages: 3000,
          readable: 3000,
          isMended: true,
          unhandled: 0,
        });
        expect(result['stored']).toBeGreaterThan(100);
        expect(result['stored']).toBeLessThan(3000);
        expect(result['failures']).toBeGreaterThan(0);
      });
    },
  );
});

/** @returns the lines that were on stdout when the writer was killed, at a moment told by chance. */
async function writeUntilKilled(folder: string, round: number): Promise<string[]> {
  const writer = spawn(process.execPath, ['--import', 'tsx', WRITER, folder, String(round)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(writer, 'exit');
  const lines: string[] = [];
  const reader = createInterface({ input: writer.stdout });
  reader.on('line', (line) => lines.push(line));
  // Every third time it may still be opening the store, or making it.
  if (round % 3 !== 0) await once(reader, 'line');
  await new Promise((resolve) =>
    setTimeout(resolve, Math.random() * (round % 3 === 0 ? 900 : 200)),
  );
  writer.kill('SIGKILL');
  const [, signal] = (await exited) as [number | null, string | null];
  expect(signal).toBe('SIGKILL');
  if (!writer.stdout.readableEnded) await once(reader, 'close');
  return lines;
}

/** Of the acknowledged lines those whose change is not there. */
async function lost(
  store: DiskStore,
  persistence: DiskPersistence,
  acknowledged: readonly string[],
): Promise<string[]> {
  const wills = await persistence.streamWill().toArray();
  const willTopics = new Set(wills.map(({ topic }: { topic: string }) => topic));
  const queues = new Map<string, Set<string>>();
  for (const id of store.sessionIds()) {
    queues.set(id, new Set(store.queued(id, 0, 1_000_000).map(({ topic }) => topic)));
  }
  const isThere = async (line: string): Promise<boolean> => {
    const [kind, text = ''] = line.split(' ');
    const [id = '', n] = text.split('/');
    if (kind === 'session') return store.hasSession(id);
    if (kind === 'queued') return queues.get(id)?.has(text) ?? false;
    if (kind === 'retained')
      return store.retained(text)?.payload.toString().startsWith(text) ?? false;
    if (kind === 'subscribed') return store.subscriptions(id).some(({ filter }) => filter === text);
    if (kind === 'will') return willTopics.has(text);
    const found = await persistence.incomingGetPacket({ id }, { messageId: Number(n) });
    return found.topic === text;
  };
  const missing: string[] = [];
  for (const line of acknowledged) {
    if (!(await isThere(line).catch(() => false))) missing.push(line);
  }
  return missing;
}

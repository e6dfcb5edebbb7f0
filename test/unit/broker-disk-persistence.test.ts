import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import {
  createDiskPersistence,
  type DiskPersistence,
} from '../../broker/store/disk-persistence.ts';
import type { DiskStore } from '../../broker/store/disk-store.ts';
import { openTestStore, withFolder } from '../support/disk-store.ts';

const SUITE = fileURLToPath(new URL('../support/persistence-suite.ts', import.meta.url));
const CLIENT = { id: 'c' };
const COUNTED = { brokerId: 'b', brokerCounter: 3 };
const MESSAGE = { cmd: 'publish', topic: 't', payload: Buffer.from('p'), qos: 2 as const };

describe('DiskPersistence', () => {
  it('passes the whole abstract suite of aedes-persistence', { timeout: 60_000 }, async () => {
    const output = await runSuite();
    const count = (kind: string) => Number(new RegExp(`^# ${kind} (\\d+)$`, 'm').exec(output)?.[1]);
    expect(count('pass'), output).toBeGreaterThan(40);
    const others = ['fail', 'cancelled', 'skipped', 'todo'].map(count);
    expect(others, output).toEqual([0, 0, 0, 0]);
  });

  it('keeps subscriptions, queue, QoS 2 identifiers and wills over a restart', async () => {
    await withFolder(async (folder) => {
      await withPersistence(folder, async (persistence) => {
        await persistence.addSubscriptions(CLIENT, [{ topic: 'a/+', qos: 1 }]);
        await persistence.outgoingEnqueue({ clientId: 'c' }, { ...MESSAGE, ...COUNTED });
        await persistence.outgoingUpdate(CLIENT, { ...MESSAGE, ...COUNTED, messageId: 9 });
        await persistence.incomingStorePacket(CLIENT, { ...MESSAGE, messageId: 7 });
        await persistence.putWill(CLIENT, { ...MESSAGE, topic: 'gone' });
        await persistence.storeRetained({ ...MESSAGE, topic: 'kept', retain: true });
      });
      await withPersistence(folder, async (persistence) => {
        expect(await persistence.subscriptionsByClient(CLIENT)).toEqual([{ topic: 'a/+', qos: 1 }]);
        expect(await persistence.subscriptionsByTopic('a/b')).toHaveLength(1);
        const [queued] = await persistence.outgoingStream(CLIENT).toArray();
        expect(queued).toMatchObject({ topic: 't', messageId: 9, ...COUNTED });
        const held = await persistence.incomingGetPacket(CLIENT, { messageId: 7 });
        expect(held).toMatchObject({ topic: 't', payload: Buffer.from('p'), messageId: 7 });
        const wills = await persistence.streamWill({ later: 1 }).toArray();
        expect(wills).toMatchObject([{ topic: 'gone', clientId: 'c', brokerId: 'broker' }]);
        const kept = await persistence.createRetainedStream('+').toArray();
        expect(kept).toMatchObject([{ cmd: 'publish', topic: 'kept', retain: true }]);
      });
    });
  });

  it('shows retained messages of the store, and the store those of the engine', async () => {
    await withFolder(async (folder) => {
      await withPersistence(folder, async (persistence, store) => {
        await store.putRetained({ topic: 'a', payload: Buffer.from('1'), qos: 1, retain: true });
        await persistence.storeRetained({ ...MESSAGE, topic: 'b' });
        const seen = await persistence.createRetainedStream('a').toArray();
        expect(seen).toEqual([
          { cmd: 'publish', topic: 'a', payload: Buffer.from('1'), qos: 1, retain: true },
        ]);
        expect(store.retained('b')).toMatchObject({ payload: Buffer.from('p'), qos: 1 });
      });
    });
  });

  it('does not mix clients whose ids begin alike or are named like prototypes (A-04)', async () => {
    await withFolder(async (folder) => {
      await withPersistence(folder, async (persistence) => {
        const ids = ['__proto__', 'constructor', 'a', 'aa', 'x'.repeat(65_535)];
        for (const [index, id] of ids.entries()) {
          await persistence.incomingStorePacket({ id }, { ...MESSAGE, messageId: index + 1 });
          await persistence.addSubscriptions({ id }, [{ topic: '__proto__', qos: 1 }]);
        }
        await persistence.cleanIncoming({ id: 'a' });
        const held = { id: 'aa' };
        expect(await persistence.incomingGetPacket(held, { messageId: 4 })).toBeDefined();
        await expect(persistence.incomingGetPacket({ id: 'a' }, { messageId: 3 })).rejects.toThrow(
          'no such packet',
        );
        expect(await persistence.getClientList('__proto__').toArray()).toEqual(ids);
      });
    });
  });

  it('drops QoS 2 identifiers of clients that stay away', async () => {
    await withFolder(async (folder) => {
      await withPersistence(folder, (persistence) =>
        persistence.incomingStorePacket(CLIENT, { ...MESSAGE, messageId: 7 }),
      );
      const store = await openTestStore(folder, { sessionAgeMaxMs: -1 });
      const persistence = createDiskPersistence(store);
      await persistence.setup({ id: 'broker' });
      await expect(persistence.incomingGetPacket(CLIENT, { messageId: 7 })).rejects.toThrow();
      await persistence.destroy();
      await store.close();
    });
  });
});

async function withPersistence(
  folder: string,
  use: (persistence: DiskPersistence, store: DiskStore) => Promise<void>,
): Promise<void> {
  const store = await openTestStore(folder);
  const persistence = createDiskPersistence(store);
  await persistence.setup({ id: 'broker' });
  await use(persistence, store);
  await persistence.destroy();
  await store.close();
}

/** The suite is written for the test runner of Node. Its exit code says less than what it prints. */
async function runSuite(): Promise<string> {
  const { NODE_TEST_CONTEXT: _context, ...env } = process.env;
  return new Promise((resolve) => {
    const args = ['--import', 'tsx', '--test', '--test-reporter=tap', SUITE];
    execFile(process.execPath, args, { env, timeout: 55_000 }, (_error, stdout, stderr) => {
      resolve(stdout + stderr);
    });
  });
}

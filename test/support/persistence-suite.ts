import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { DiskPersistence } from '../../broker/store/disk-persistence.ts';
import { openTestStore } from './disk-store.ts';

/** The abstract suite of `aedes-persistence` against the one on disk; run by `node --import tsx --test`. */
type AbstractSuite = (options: {
  test: typeof test;
  testAsync: boolean;
  persistence: () => Promise<DiskPersistence>;
}) => void;

const abstractSuite = createRequire(import.meta.url)(
  'aedes-persistence/abstract.js',
) as AbstractSuite;

abstractSuite({
  test,
  testAsync: true,
  async persistence() {
    const folder = await mkdtemp(join(tmpdir(), 'puback-persistence-'));
    const store = await openTestStore(folder);
    return new (class extends DiskPersistence {
      override async destroy(): Promise<void> {
        await super.destroy();
        await store.close();
        await rm(folder, { recursive: true });
      }
    })(store);
  },
});

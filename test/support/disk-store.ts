import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { openDiskStore, type DiskStore, type StoreLimits } from '../../broker/store/disk-store.ts';

/** Bounds that no test meets by chance. */
export const WIDE_LIMITS: StoreLimits = {
  queueMessagesMax: 100_000,
  queueBytesMax: 1_000_000_000,
  queueAgeMaxMs: 86_400_000,
  sessionsMax: 10_000,
  sessionAgeMaxMs: 86_400_000,
  retainedMax: 1_000_000,
};

/** Opens a session store in a folder, silent and with metrics of its own. */
export async function openTestStore(
  folder: string,
  limits: Partial<StoreLimits> = {},
  metricsRegistry = new Registry(),
): Promise<DiskStore> {
  return openDiskStore({
    folder,
    limits: { ...WIDE_LIMITS, ...limits },
    metricsRegistry,
    log: pino({ level: 'silent' }),
  });
}

/** Runs something with a folder that is gone afterwards. */
export async function withFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'puback-store-'));
  try {
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

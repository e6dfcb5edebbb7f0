import { pino } from 'pino';
import { Registry as MetricsRegistry } from 'prom-client';
import type { Database } from '../../drizzle/database.ts';
import type { RetentionBounds } from '../../drizzle/retention.ts';
import { organization } from '../../drizzle/schema.ts';
import { inTransaction } from '../../drizzle/transaction.ts';
import { insertKey } from '../../registry/api-keys.ts';
import type { Author } from '../../registry/devices.ts';
import type { KeySettings } from '../../registry/keys/key-parts.ts';
import { createRegistry, type Registry } from '../../registry/registry.ts';

/** Limits of a test's registry: small, so that a test can reach them. */
export const registryLimits = {
  integratorKeysMax: 5,
  deviceEventsQueueMax: 1000,
  retentionBounds: { max: { raw: 30, '1m': 90, '1h': 365, '1d': 3650 }, rawMin: 10 },
  deviceEventBounds: { ageMaxMs: 30 * 86_400_000, rowsPerDeviceMax: 5, unknownRowsMax: 20 },
  keys: {
    address: { host: 'iot.example.com', port: 8883, isEncrypted: true },
    pendingMs: 86_400_000,
    graceMs: 86_400_000,
    reissueMs: 5000,
    isPlainAllowed: false,
    claimKeysMax: 5,
    claimsWaitingMax: 3,
    batchMax: 50,
    now: () => Date.now(),
  },
};

/** A registry on a test database, as the program makes it. Not started. */
export function createTestRegistry(
  database: Database,
  devicesMax = 1000,
  retentionBounds: RetentionBounds = registryLimits.retentionBounds,
  keys: Partial<KeySettings> = {},
): Registry {
  return createRegistry({
    database,
    metricsRegistry: new MetricsRegistry(),
    log: pino({ level: 'silent' }),
    devicesMax,
    databaseTimeoutMs: 5000,
    ...registryLimits,
    keys: { ...registryLimits.keys, ...keys },
    retentionBounds,
  });
}

/** An organization with an admin key, and the author that stands for its admin. */
export interface TestOrganization {
  readonly author: Author;
  readonly adminKey: string;
}

/** Makes an organization. */
export async function createOrganization(
  database: Database,
  slug: string,
): Promise<TestOrganization> {
  return inTransaction(database.pool, async (transaction) => {
    const [row] = await transaction.orm
      .insert(organization)
      .values({ slug, displayName: slug })
      .returning();
    if (row === undefined) throw new Error('no organization');
    const author = { organizationId: row.organizationId, actor: 'test' };
    const owner = { deviceId: null, device: null, name: 'test' };
    return { author, adminKey: (await insertKey(transaction, author, owner)).key };
  });
}

import { pino } from 'pino';
import { Registry as MetricsRegistry } from 'prom-client';
import type { RetentionBounds } from '../../drizzle/retention.ts';
import {
  createAggregates,
  type Aggregates,
  type AggregatesDeps,
} from '../../ingest/aggregates/aggregates.ts';
import type { Database } from '../../drizzle/database.ts';

/** Bounds of retention in tests: those of the settings. */
export const RETENTION_BOUNDS: RetentionBounds = {
  max: { raw: 30, '1m': 90, '1h': 365, '1d': 3650 },
  rawMin: 10,
};

/** How long ago a bucket must have ended with the timeout of a test's aggregates, in ms. */
export const TEST_MARGIN_MS = 62_000;

/** Aggregates on a test database, not started: tests run the jobs themselves. */
export function createTestAggregates(
  database: Database,
  deps: Partial<AggregatesDeps> = {},
): Aggregates {
  return createAggregates({
    database,
    limits: { databaseTimeoutMs: 1000, retention: RETENTION_BOUNDS },
    metricsRegistry: new MetricsRegistry(),
    log: pino({ level: 'silent' }),
    ...deps,
  });
}

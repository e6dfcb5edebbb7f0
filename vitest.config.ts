import { defineConfig } from 'vitest/config';

/** Against hanging, as all times here are: what has to be quick says so itself. */
const WAITS = { poll: { timeout: 20_000 } };

/**
 * `unit` is pure and quick. `database` runs against the PostgreSQL that `test/support/global-setup.ts`
 * starts, or against the server of TEST_DATABASE_URL; each file has a database of its own.
 */
export default defineConfig({
  test: {
    maxWorkers: 2,
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts'],
          testTimeout: 60_000,
          expect: WAITS,
        },
      },
      {
        test: {
          name: 'database',
          include: ['test/{integration,e2e}/**/*.test.ts'],
          globalSetup: ['test/support/global-setup.ts'],
          testTimeout: 60_000,
          hookTimeout: 120_000,
          expect: WAITS,
        },
      },
    ],
  },
});

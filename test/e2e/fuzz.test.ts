import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { logTail } from '../../bench/program.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { runFuzz } from '../support/fuzz-run.ts';
import { faultsOf } from '../support/fuzz-verdict.ts';

/** Another seed each day, which a failure names: `npm run fuzz -- --seed N` runs it again. */
const SEED = Number(process.env['FUZZ_SEED'] ?? Math.floor(Date.now() / 86_400_000));
const DURATION_MS = 60_000;

let test: TestDatabase;
let folder: string;
beforeAll(async () => {
  test = await createTestDatabase();
  folder = await mkdtemp(join(tmpdir(), 'puback-fuzz-'));
});
afterAll(async () => {
  await test.drop();
  await rm(folder, { recursive: true, force: true });
});

it(
  'mutated sessions end nothing, delay nobody and leave nothing behind (I-02)',
  { timeout: DURATION_MS + 90_000 },
  async () => {
    const logFile = join(folder, 'program.log');
    const result = await runFuzz({
      seed: SEED,
      durationMs: DURATION_MS,
      atOnce: 20,
      dataDir: join(folder, 'data'),
      logFile,
      environment: { DATABASE_URL: test.url },
      show: () => undefined,
    });
    const faults = faultsOf(result);
    if (faults.length > 0) console.error(`${result.describeLast()}\n${await logTail(logFile)}`);
    expect(faults).toEqual([]);
    expect(result.sessions).toBeGreaterThan(500);
  },
);

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runCrashRounds, type CrashPlan } from '../../bench/crash-rounds.ts';
import { logTail, stopLeftDatabase } from '../../bench/program.ts';
import { makeScratchFolder, type ScratchFolder } from '../../bench/scratch-folder.ts';

const FAULTS_MAX = 3;

let folder: ScratchFolder;

beforeEach(async () => {
  folder = await makeScratchFolder('crash-test');
});

afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') process.stderr.write(await logTail(folder.logFile));
  await stopLeftDatabase(folder.dataDir);
  await folder.remove();
});

function plan(faults: CrashPlan['faults'], seed: number): CrashPlan {
  return {
    folder,
    faults,
    faultsMax: FAULTS_MAX,
    durationS: 90,
    seed,
    connections: 10,
    window: 20,
    ratePerS: 2000,
    pauseMsMax: 1000,
  };
}

describe('a crash under load', { timeout: 120_000 }, () => {
  it.each([
    { fault: 'kill-program' as const, seed: 1 },
    { fault: 'kill-database' as const, seed: 2 },
    { fault: 'kill-both' as const, seed: 3 },
    { fault: 'restart-program' as const, seed: 4 },
  ])('$fault loses no acknowledged message and stores none twice', async ({ fault, seed }) => {
    const { faults, check, generator, ownExits } = await runCrashRounds(plan([fault], seed));

    expect(check).toMatchObject({ lost: 0, twice: 0, altered: 0, examples: [] });
    expect(check.acknowledged).toBe(generator.acknowledgedTotal);
    expect(check.acknowledged).toBeGreaterThan(1000);
    expect(generator.unacknowledged).toBe(0);
    expect(faults).toHaveLength(FAULTS_MAX);
    expect(faults.at(-1)?.recoveredMs).not.toBeNull();
    expect(ownExits).toBe(0);
  });
});

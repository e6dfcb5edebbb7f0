import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runChaos } from '../../bench/chaos-run.ts';
import { makeFaults } from '../../bench/faults/catalogue.ts';
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

const allFaults = makeFaults({ outageMs: 1000, spellMs: 1000 });

// Devices tell their messages by `ts`, by `seq` or by both, and publish at QoS 1 and at QoS 2.
describe('under load, with the embedded database,', { timeout: 240_000 }, () => {
  for (const given of [
    { ids: 'D-01 D-02', fault: 'kill-program', seed: 1 },
    { ids: 'D-04', fault: 'kill-database', seed: 2 },
    { ids: 'D-01 D-04', fault: 'kill-both', seed: 3 },
    { ids: 'D-03', fault: 'restart-program', seed: 4 },
  ]) {
    it(`${given.ids}: ${given.fault} loses no acknowledged message and stores none twice`, async () => {
      const fault = allFaults.get(given.fault);
      if (fault === undefined) throw new Error(`no fault ${given.fault}`);
      const { faults, check, ledger, generator, ownExits, unrulyUnacknowledged } = await runChaos({
        folder,
        database: 'embedded',
        faults: [fault],
        faultsMax: FAULTS_MAX,
        durationS: 90,
        seed: given.seed,
        connections: 10,
        window: 20,
        ratePerS: 2000,
        pauseMsMax: 1000,
      });

      expect(check).toMatchObject({ lost: 0, twice: 0, altered: 0, examples: [] });
      expect(check.acknowledged).toBeGreaterThan(generator.acknowledgedTotal);
      expect(generator.acknowledgedTotal).toBeGreaterThan(1000);
      expect(generator.unacknowledged + unrulyUnacknowledged).toBe(0);
      expect(ledger.breaches).toBe(0);
      expect(faults).toHaveLength(FAULTS_MAX);
      expect(faults.at(-1)?.recoveredMs).not.toBeNull();
      expect(ownExits).toBe(0);
    });
  }
});

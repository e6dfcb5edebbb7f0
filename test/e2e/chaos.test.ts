import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { chaosText, isFaultless } from '../../bench/chaos-report.ts';
import { runChaos } from '../../bench/chaos-run.ts';
import { makeFaults } from '../../bench/faults/catalogue.ts';
import { logTail } from '../../bench/program.ts';
import { makeScratchFolder, type ScratchFolder } from '../../bench/scratch-folder.ts';

const DURATION_S = 180;
/** Outages of ten seconds where `npm run chaos` has a minute. */
const TIMES = { outageMs: 10_000, spellMs: 3000 };

let folder: ScratchFolder;

beforeEach(async () => {
  folder = await makeScratchFolder('chaos-test');
});

afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') process.stderr.write(await logTail(folder.logFile));
  await folder.remove();
});

describe('three minutes of faults of every kind', { timeout: 600_000 }, () => {
  it('D-01 to D-11 lose no acknowledged reading, store none twice, and need nobody', async () => {
    const [first, ...rest] = makeFaults(TIMES).values();
    if (first === undefined) throw new Error('there are no faults');
    const report = await runChaos({
      folder,
      database: 'server',
      faults: [first, ...rest],
      faultsMax: Number.POSITIVE_INFINITY,
      durationS: DURATION_S,
      seed: 4,
      connections: 10,
      window: 20,
      ratePerS: 500,
      pauseMsMax: 500,
    });
    const text = chaosText(report);
    process.stdout.write(text);
    for (const { fault, reason } of report.skipped) console.warn(`SKIPPED: ${fault}: ${reason}`);

    expect(isFaultless(report), text).toBe(true);
    expect(report.check.acknowledged).toBeGreaterThan(10_000);
    expect(report.generator.unacknowledged + report.unrulyUnacknowledged).toBe(0);
    expect(report.ownExits).toBe(0);
    const struck = new Set(report.faults.map(({ fault }) => fault));
    expect(struck.size + report.skipped.length).toBe(rest.length + 1);
  });
});

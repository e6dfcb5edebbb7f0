import { countOption, numberOption, runTool, type OptionTable } from '../../bench/command-line.ts';
import { logTail, stopLeftDatabase } from '../../bench/program.ts';
import { createProgress } from '../../bench/progress.ts';
import { makeScratchFolder } from '../../bench/scratch-folder.ts';
import { faultsOf } from './fuzz-verdict.ts';
import { runFuzz } from './fuzz-run.ts';

const HELP = `Sends mutated MQTT sessions to Puback, over TCP and WebSocket, before and after login, while a device and
a subscriber that have done nothing are watched. It starts the program on a temporary data folder, or on
DATABASE_URL when that is set.

  npm run fuzz -- [options]

  --minutes M       how long                                                   (30)
  --seed N          the same sessions again                                    (random)
  --at-once N       connections at once                                        (40)
  --help

Exit status: 0 the program is up and empty and nothing happened to the innocents, 1 otherwise, 2 the run
could not take place.
`;

const OPTIONS: OptionTable = {
  minutes: { type: 'string' },
  seed: { type: 'string' },
  'at-once': { type: 'string' },
};

await runTool(HELP, OPTIONS, async (options) => {
  const minutes = numberOption(options, 'minutes', 30, [0.05, 10_000]);
  const seed = countOption(options, 'seed', Date.now() % 1_000_000, [0, 2 ** 32 - 1]);
  const atOnce = countOption(options, 'at-once', 40, [1, 1000]);
  const progress = createProgress(process.stderr);
  progress.step(`seed ${seed}`);
  const scratch = await makeScratchFolder('fuzz');
  try {
    const { dataDir, logFile } = scratch;
    const result = await runFuzz({
      ...{ seed, atOnce, dataDir, logFile, environment: {} },
      durationMs: minutes * 60_000,
      show: (line) => progress.show(line),
    });
    progress.end();
    const faults = faultsOf(result);
    const { describeLast, ...figures } = result;
    process.stdout.write(`${JSON.stringify(figures, null, 2)}\n`);
    if (faults.length === 0) return 0;
    const log = await logTail(logFile);
    process.stdout.write(`${faults.join('\n')}\n\n${describeLast()}\n\n${log}\n`);
    return 1;
  } finally {
    await stopLeftDatabase(scratch.dataDir);
    await scratch.remove();
  }
});

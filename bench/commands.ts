import { readFile } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { findPackageRoot } from '../drizzle/package-root.ts';
import { ApiClient } from './api-client.ts';
import { withBenchProgram } from './bench-program.ts';
import { commandsSection, isCommandGoalMet, type CommandsResult } from './command-results.ts';
import { CommandProbe } from './command-probe.ts';
import { durationOption, runTool, type OptionTable } from './command-line.ts';
import type { BoardAccess } from './fleet-keys.ts';
import { runLoad } from './load-run.ts';
import { createProgress } from './progress.ts';
import { replaceSection } from './result-sections.ts';
import { describeMachine } from './results.ts';

const HELP = `Measures the round trip of a command of a connected device, from the request that asks for it to the
answer with the device's result: alone, and while readings are stored at half of what load (a) of
npm run bench reaches in this run. A full run writes a section of bench/RESULTS.md.

  npm run bench:commands -- [options]

  --quick          a few seconds each, to see that it works; writes no file
  --seconds D      measured time of each                                       (20)
  --help

Exit status: 0 the goal is met, 1 otherwise, 2 the run could not take place.
`;

const OPTIONS: OptionTable = { quick: { type: 'boolean' }, seconds: { type: 'string' } };
const LOAD = { connections: 50, window: 20, payload: 'one' as const };
const PROBES = 10;
const [loadBefore = 0] = loadavg();

await runTool(HELP, OPTIONS, async (options) => {
  const isQuick = options['quick'] === true;
  const measuredS = isQuick ? 3 : durationOption(options, 'seconds', 20);
  const seconds = { warmupS: isQuick ? 1 : 4, measuredS };
  const progress = createProgress(process.stderr);
  const groups = [LOAD, LOAD, { connections: PROBES }, { connections: PROBES }];
  const result = await withBenchProgram('commands', groups, progress, async (program, files) => {
    const { httpUrl, adminKey, mqttUrl } = program.credentials;
    const api = new ApiClient(httpUrl, adminKey);
    const load = async (keysFile = '', ratePerS?: number): Promise<number> => {
      const rate = ratePerS === undefined ? {} : { ratePerS };
      const run = { mqttUrl, keysFile, ...LOAD, ...seconds, ...rate };
      const { generator } = await runLoad(run, () => Promise.resolve());
      return generator.acknowledged / generator.seconds;
    };
    const probe = async (keysFile = ''): Promise<CommandsResult['alone']> => {
      const boards = JSON.parse(await readFile(keysFile, 'utf8')) as BoardAccess[];
      return new CommandProbe(api, mqttUrl).run(boards, seconds);
    };
    progress.step('commands alone');
    const alone = await probe(files[2]);
    progress.step('load (a), as fast as it goes');
    const fastestPerS = await load(files[0]);
    progress.step('commands, and load (a) at half of that');
    const offeredPerS = Math.round(fastestPerS / 2);
    const [loaded, storedPerS] = await Promise.all([probe(files[3]), load(files[1], offeredPerS)]);
    return { alone, loaded, offeredPerS, storedPerS } satisfies CommandsResult;
  });
  const section = commandsSection(await describeMachine(loadBefore), seconds, result);
  process.stdout.write(`${section}\n`);
  if (process.argv.length === 2) {
    const path = join(findPackageRoot(), 'bench', 'RESULTS.md');
    await replaceSection(path, section);
    process.stdout.write(`\nwritten to ${path}\n`);
  }
  return isCommandGoalMet(result) ? 0 : 1;
});

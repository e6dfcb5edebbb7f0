import { loadavg } from 'node:os';
import { join } from 'node:path';
import { findPackageRoot } from '../drizzle/package-root.ts';
import { ToolFailedError } from '../errors.ts';
import { failOn, LIFTED_LIMITS, writeKeys } from './bench-program.ts';
import {
  durationOption,
  interruption,
  runTool,
  textOption,
  type GivenOptions,
  type OptionTable,
} from './command-line.ts';
import { findDatabaseUrl, withDatabase } from './database-client.ts';
import {
  findServerPid,
  measureScenario,
  type Durations,
  type ScenarioResult,
  type Subject,
} from './measurement.ts';
import { startProgram, stopLeftDatabase, type Program } from './program.ts';
import { createProgress, type Progress } from './progress.ts';
import { describeRun, isConserved, resultsDocument, resultTable, verdicts } from './results.ts';
import { replaceHead } from './result-sections.ts';
import { scenarios, type Scenario } from './scenarios.ts';
import { makeScratchFolder, type ScratchFolder } from './scratch-folder.ts';

const HELP = `Measures how many messages a second Puback stores and acknowledges, and what a message costs.
It starts the program on a temporary data folder with the limits lifted, or on DATABASE_URL when that
is set. A full run writes bench/RESULTS.md.

  npm run bench -- [options]

  --quick          a few seconds each, to see that it works; writes no file
  --only a,c       these loads alone; writes no file
  --seconds D      measured time of each load, at most 60                      (15)
  --help

${scenarios.map(({ id, title }) => `  (${id}) ${title}`).join('\n')}

Exit status: 0 done, 1 other rows were stored than were acknowledged, 2 the run could not take place.
`;

const OPTIONS: OptionTable = {
  quick: { type: 'boolean' },
  only: { type: 'string' },
  seconds: { type: 'string' },
};

const [loadBefore = 0] = loadavg();

await runTool(HELP, OPTIONS, async (options) => {
  const chosen = chooseScenarios(textOption(options, 'only', ''));
  const durations = chooseDurations(options);
  const progress = createProgress(process.stderr);
  const interrupted = interruption();
  const scratch = await makeScratchFolder('bench');
  try {
    progress.step('starting the program');
    const { dataDir, logFile } = scratch;
    const program = await startProgram({
      dataDir,
      logFile,
      environment: LIFTED_LIMITS,
      // A database of an earlier run has an organization whose keys nobody knows any more.
      arguments: ['--new-admin-key'],
    });
    try {
      const bench = runScenarios(program, scratch, chosen, durations, progress);
      return await Promise.race([bench, failOn(interrupted)]);
    } finally {
      await program.stop();
    }
  } finally {
    progress.end();
    await stopLeftDatabase(scratch.dataDir);
    await scratch.remove();
  }
});

async function runScenarios(
  program: Program,
  scratch: ScratchFolder,
  chosen: readonly Scenario[],
  durations: Durations,
  progress: Progress,
): Promise<number> {
  const keysFiles = await writeKeys(program, scratch, chosen, progress);
  const databaseUrl = await findDatabaseUrl(scratch.dataDir);
  return withDatabase(databaseUrl, async (client) => {
    const subject: Subject = {
      programPid: program.pid,
      databasePid: await findServerPid(client),
      databaseUrl,
      mqttUrl: program.credentials.mqttUrl,
      client,
    };
    const results: ScenarioResult[] = [];
    for (const [index, scenario] of chosen.entries()) {
      progress.step(`(${scenario.id}) ${scenario.title}`);
      const keysFile = keysFiles[index] ?? '';
      results.push(await measureScenario(subject, scenario, durations, keysFile));
    }
    progress.end();
    process.stdout.write(`${resultTable(results)}\n\n${verdicts(results).join('\n')}\n`);
    if (process.argv.length === 2) {
      const run = await describeRun(client, 'npm run bench', loadBefore);
      const path = join(findPackageRoot(), 'bench', 'RESULTS.md');
      await replaceHead(path, resultsDocument(run, durations, results));
      process.stdout.write(`\nwritten to ${path}\n`);
    }
    return results.every(isConserved) ? 0 : 1;
  });
}

function chooseScenarios(only: string): readonly Scenario[] {
  if (only === '') return scenarios;
  const ids = only.split(',');
  const unknown = ids.filter((id) => !scenarios.some((scenario) => scenario.id === id));
  if (unknown.length > 0) {
    const known = scenarios.map(({ id }) => id).join(', ');
    throw new ToolFailedError(`--only knows ${known}, not ${unknown.join(', ')}`);
  }
  return scenarios.filter(({ id }) => ids.includes(id));
}

function chooseDurations(options: GivenOptions): Durations {
  if (options['quick'] === true) return { warmupS: 1, measuredS: 3, ceilingS: 2 };
  const measuredS = durationOption(options, 'seconds', 15);
  // A device that sends more than one message in a millisecond runs ahead of the clock, and more than
  // five minutes ahead its times are replaced by those of receipt.
  if (measuredS > 60) throw new ToolFailedError('--seconds must be at most 60');
  return { warmupS: 4, measuredS, ceilingS: 8 };
}

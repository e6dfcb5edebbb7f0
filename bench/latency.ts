import { loadavg } from 'node:os';
import { join } from 'node:path';
import { findPackageRoot } from '../drizzle/package-root.ts';
import { withBenchProgram } from './bench-program.ts';
import { durationOption, runTool, type OptionTable } from './command-line.ts';
import { isLatencyGoalMet, latencySection, type LatencyResult } from './latency-results.ts';
import { runLoad, type LoadRun } from './load-run.ts';
import { createProgress, type Progress } from './progress.ts';
import { replaceSection } from './result-sections.ts';
import { describeMachine } from './results.ts';
import { scenarios } from './scenarios.ts';

const HELP = `Measures the time from a PUBLISH to its PUBACK, which follows COMMIT, below the highest rate: at 1 000
messages/s, and at half of what the loads (a) and (b) of npm run bench reach in this run. A full run
writes a section of bench/RESULTS.md.

  npm run bench:latency -- [options]

  --quick          a few seconds each, to see that it works; writes no file
  --seconds D      measured time of each                                       (20)
  --help

Exit status: 0 the goals are met, 1 otherwise, 2 the run could not take place.
`;

const OPTIONS: OptionTable = { quick: { type: 'boolean' }, seconds: { type: 'string' } };
const CALM_PER_S = 1000;
const CALM_P50_MS = 5;
const HALF_P99_MS = 100;
const [loadBefore = 0] = loadavg();

/** The first load, at a fixed rate, then each of the others twice: as fast as it goes, and at half of that. */
const LOADS = scenarios.filter(({ id }) => id === 'a' || id === 'b');
const CALM = LOADS[0] ?? {
  connections: 50,
  window: 20,
  payload: 'one' as const,
  id: '',
  title: '',
};

type Seconds = Pick<LoadRun, 'warmupS' | 'measuredS'>;

await runTool(HELP, OPTIONS, async (options) => {
  const isQuick = options['quick'] === true;
  const measuredS = isQuick ? 3 : durationOption(options, 'seconds', 20);
  const seconds = { warmupS: isQuick ? 1 : 4, measuredS };
  const progress = createProgress(process.stderr);
  const groups = [CALM, ...LOADS.flatMap((load) => [load, load])];
  const results = await withBenchProgram('latency', groups, progress, (program, keysFiles) =>
    measureAll(program.credentials.mqttUrl, keysFiles, seconds, progress),
  );
  const machine = await describeMachine(loadBefore);
  const section = latencySection(machine, seconds, results);
  process.stdout.write(`${section}\n`);
  if (process.argv.length === 2) {
    const path = join(findPackageRoot(), 'bench', 'RESULTS.md');
    await replaceSection(path, section);
    process.stdout.write(`\nwritten to ${path}\n`);
  }
  return results.every(isLatencyGoalMet) ? 0 : 1;
});

async function measureAll(
  mqttUrl: string,
  keysFiles: readonly string[],
  seconds: Seconds,
  progress: Progress,
): Promise<LatencyResult[]> {
  const results: LatencyResult[] = [];
  let next = 0;
  const measure = async (
    load: Omit<LatencyResult, 'generator'>,
    shape: Pick<LoadRun, 'connections' | 'window' | 'payload'>,
  ): Promise<number> => {
    progress.step(load.title);
    const { connections, window, payload } = shape;
    const keysFile = keysFiles[next] ?? '';
    next += 1;
    const rate = load.offeredPerS === null ? {} : { ratePerS: load.offeredPerS };
    const run = { mqttUrl, keysFile, connections, window, payload, ...seconds, ...rate };
    const { generator } = await runLoad(run, () => Promise.resolve());
    results.push({ ...load, generator });
    return generator.acknowledged / generator.seconds;
  };
  const calm = { title: '1 000 messages/s, 50 connections', offeredPerS: CALM_PER_S };
  await measure({ ...calm, goal: { quantile: 'p50', maxMs: CALM_P50_MS } }, CALM);
  for (const scenario of LOADS) {
    const title = `(${scenario.id}) ${scenario.title}`;
    const fastest = { title: `${title}, as fast as it goes`, offeredPerS: null, goal: null };
    const perS = await measure(fastest, scenario);
    const half = { title: `${title}, at half of that`, offeredPerS: Math.round(perS / 2) };
    await measure({ ...half, goal: { quantile: 'p99', maxMs: HALF_P99_MS } }, scenario);
  }
  return results;
}

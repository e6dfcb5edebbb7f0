import { loadavg } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { findPackageRoot } from '../drizzle/package-root.ts';
import { ToolFailedError } from '../errors.ts';
import { ApiClient } from './api-client.ts';
import { withBenchProgram } from './bench-program.ts';
import { countOption, durationOption, runTool, type OptionTable } from './command-line.ts';
import { heapSection, isHeapGoalMet, type HeapResult } from './heap-results.ts';
import type { HeapSample } from './heap-trend.ts';
import { runLoad } from './load-run.ts';
import type { Program } from './program.ts';
import { createProgress, type Progress } from './progress.ts';
import { replaceSection } from './result-sections.ts';
import { describeMachine } from './results.ts';

const HELP = `Looks whether the memory of the program grows under a steady load: samples its own figures every 10 s
and fits a line through the last two thirds. A run of 30 minutes or more writes a section of
bench/RESULTS.md.

  npm run bench:heap -- [options]

  --duration D      60, 90s, 10m or 2h; 30 s at least                           (30m)
  --rate N          messages/s in all                                           (5000)
  --connections N   devices                                                     (100)
  --help

Exit status: 0 the memory is flat, 1 it grew, 2 the run could not take place.
`;

const OPTIONS: OptionTable = {
  duration: { type: 'string' },
  rate: { type: 'string' },
  connections: { type: 'string' },
};
const FULL_S = 1800;
const SHORTEST_S = 30;
const EVERY_S = 10;
/** A short run needs samples too. */
const SAMPLES_MIN = 12;
const WINDOW = 20;
const WARMUP_S = 1;
const [loadBefore = 0] = loadavg();

interface Plan {
  readonly connections: number;
  readonly ratePerS: number;
  readonly measuredS: number;
}

await runTool(HELP, OPTIONS, async (options) => {
  const plan: Plan = {
    connections: countOption(options, 'connections', 100, [1, 10_000]),
    ratePerS: countOption(options, 'rate', 5000, [1, 1_000_000]),
    measuredS: durationOption(options, 'duration', FULL_S),
  };
  if (plan.measuredS < SHORTEST_S) {
    throw new ToolFailedError(`--duration must be at least ${SHORTEST_S} s`);
  }
  // A device that sends more than one message in a millisecond runs ahead of the clock.
  if (plan.ratePerS > 1000 * plan.connections) {
    throw new ToolFailedError('--rate must be at most 1000 for each connection');
  }
  const progress = createProgress(process.stderr);
  const result = await withBenchProgram('heap', [plan], progress, (program, [keysFile = '']) =>
    measure(program, plan, keysFile, progress),
  );
  const section = heapSection(await describeMachine(loadBefore), result);
  process.stdout.write(`${section}\n`);
  if (plan.measuredS >= FULL_S) {
    const path = join(findPackageRoot(), 'bench', 'RESULTS.md');
    await replaceSection(path, section);
    process.stdout.write(`\nwritten to ${path}\n`);
  }
  return isHeapGoalMet(result) ? 0 : 1;
});

async function measure(
  program: Program,
  plan: Plan,
  keysFile: string,
  progress: Progress,
): Promise<HeapResult> {
  const { httpUrl, adminKey, mqttUrl } = program.credentials;
  const everyS = Math.min(EVERY_S, plan.measuredS / SAMPLES_MIN);
  const load = {
    ...plan,
    mqttUrl,
    keysFile,
    window: WINDOW,
    payload: 'one',
    warmupS: WARMUP_S,
  } as const;
  const isOver = new AbortController();
  const running = runLoad(load, () => Promise.resolve()).finally(() => isOver.abort());
  const sampling = sample(new ApiClient(httpUrl, adminKey), everyS, isOver.signal, (taken) => {
    const left = Math.max(0, plan.measuredS - taken.atS);
    const [rss, heap] = [taken.rssBytes, taken.heapBytes].map((bytes) => (bytes / 1e6).toFixed(1));
    progress.show(`${Math.round(left)} s left, ${rss} MB resident, ${heap} MB of heap in use`);
  });
  const [{ generator }, samples] = await Promise.all([running, sampling]);
  return { ...plan, everyS, samples, generator };
}

async function sample(
  api: ApiClient,
  everyS: number,
  isOver: AbortSignal,
  tell: (sample: HeapSample) => void,
): Promise<HeapSample[]> {
  const samples: HeapSample[] = [];
  const startMs = performance.now();
  while (!isOver.aborted) {
    const metrics = await api.metrics();
    const value = (name: string): number => metrics.get(name) ?? Number.NaN;
    const taken = {
      atS: (performance.now() - startMs) / 1000,
      rssBytes: value('process_resident_memory_bytes'),
      heapBytes: value('nodejs_heap_size_used_bytes'),
      externalBytes: value('nodejs_external_memory_bytes'),
    };
    samples.push(taken);
    tell(taken);
    const dueMs = startMs + samples.length * everyS * 1000;
    await delay(Math.max(0, dueMs - performance.now()), null, { signal: isOver }).catch(ignoreEnd);
  }
  return samples;
}

/** The load has ended, and the wait with it. */
function ignoreEnd(error: unknown): void {
  if ((error as Error).name !== 'AbortError') throw error;
}

import { formatCount, formatMs, formatTable } from './figures.ts';
import type { GeneratorResult } from './generator.ts';
import type { MachineDescription } from './results.ts';

/** Times to PUBACK in one load. */
export interface LatencyResult {
  readonly title: string;
  /** Messages a second that were to be sent; null: as fast as they are acknowledged. */
  readonly offeredPerS: number | null;
  /** What is wanted; null for a load that only says what half of it is. */
  readonly goal: { readonly quantile: 'p50' | 'p99'; readonly maxMs: number } | null;
  readonly generator: GeneratorResult;
}

/** A load that was not sent as offered has met no goal: messages waited before they were timed. */
const SENT_SHARE_MIN = 0.97;

/** Whether the times are within the goal at the rate that was offered. */
export function isLatencyGoalMet({ goal, offeredPerS, generator }: LatencyResult): boolean {
  if (goal === null) return true;
  const perS = generator.acknowledged / generator.seconds;
  const isSent = offeredPerS === null || perS >= offeredPerS * SENT_SHARE_MIN;
  return isSent && timeOf(goal.quantile, generator) <= goal.maxMs;
}

/** The section of bench/RESULTS.md, with its heading. */
export function latencySection(
  machine: MachineDescription,
  seconds: { readonly warmupS: number; readonly measuredS: number },
  results: readonly LatencyResult[],
): string {
  return `## Time to PUBACK

Made by \`npm run bench:latency\`: from the write of a PUBLISH to the read of its PUBACK, which follows
COMMIT. Generator, program and database shared the processors; the generator sends every 10 ms what is due.

- Machine: ${machine.machine}; load before the run: ${machine.loadBefore.toFixed(1)}
- Node.js ${machine.node}; commit ${machine.commit}, ${machine.date}
- ${seconds.warmupS} s of warm-up, ${seconds.measuredS} s measured

${formatTable(HEADER, results.map(row))}

${results.flatMap(verdict).join('\n')}`;
}

const HEADER = ['load', 'offered/s', 'acknowledged/s', 'PUBACK p50', 'p99', 'max'];

function row({ title, offeredPerS, generator }: LatencyResult): string[] {
  return [
    title,
    offeredPerS === null ? '–' : formatCount(offeredPerS),
    formatCount(generator.acknowledged / generator.seconds),
    formatMs(generator.p50Ms),
    formatMs(generator.p99Ms),
    formatMs(generator.maxMs),
  ];
}

function verdict(result: LatencyResult): string[] {
  const { title, goal, generator } = result;
  if (goal === null) return [];
  const time = formatMs(timeOf(goal.quantile, generator));
  const isMet = isLatencyGoalMet(result) ? 'met' : 'NOT MET';
  return [`- ${title}: ${goal.quantile} ${time}, at most ${formatMs(goal.maxMs)} wanted: ${isMet}`];
}

function timeOf(quantile: 'p50' | 'p99', { p50Ms, p99Ms }: GeneratorResult): number {
  return quantile === 'p50' ? p50Ms : p99Ms;
}

import { formatCount, formatTable } from './figures.ts';
import type { GeneratorResult } from './generator.ts';
import { isFlat, riseMax, trendOf, type HeapSample } from './heap-trend.ts';
import type { MachineDescription } from './results.ts';

/** The memory of the program under one load. */
export interface HeapResult {
  readonly connections: number;
  readonly ratePerS: number;
  readonly everyS: number;
  readonly samples: readonly HeapSample[];
  readonly generator: GeneratorResult;
}

const KINDS = [
  { name: 'resident', read: ({ rssBytes }: HeapSample) => rssBytes },
  { name: 'JavaScript heap in use', read: ({ heapBytes }: HeapSample) => heapBytes },
  { name: 'buffers', read: ({ externalBytes }: HeapSample) => externalBytes },
] as const;

/** Whether no kind of memory grew. */
export function isHeapGoalMet({ samples }: HeapResult): boolean {
  return KINDS.every(({ read }) => isFlat(trendOf(samples, read)));
}

/** The section of bench/RESULTS.md, with its heading. */
export function heapSection(machine: MachineDescription, result: HeapResult): string {
  const { connections, ratePerS, everyS, samples, generator } = result;
  const minutes = (samples.at(-1)?.atS ?? 0) / 60;
  const trends = KINDS.map(({ name, read }) => ({ name, trend: trendOf(samples, read) }));
  const rows = trends.map(({ name, trend }) => [
    name,
    megabytes(trend.meanBytes),
    megabytes(trend.maxBytes),
    megabytes(trend.bytesPerH),
    megabytes(trend.risenBytes),
    megabytes(riseMax(trend)),
  ]);
  const verdicts = trends.map(
    ({ name, trend }) => `- ${name}: ${isFlat(trend) ? 'flat' : 'NOT FLAT'}`,
  );
  return `## Memory under load

Made by \`npm run bench:heap\`: ${formatCount(ratePerS)} messages/s on ${connections} connections for ${minutes.toFixed(1)} minutes, looked at every ${everyS} s.

- Machine: ${machine.machine}; load before the run: ${machine.loadBefore.toFixed(1)}
- Node.js ${machine.node}; commit ${machine.commit}, ${machine.date}
- ${formatCount(generator.acknowledgedTotal)} messages acknowledged, ${formatCount(generator.acknowledged / generator.seconds)} a second

${formatTable(HEADER, rows)}

Memory of the program alone, over the last two thirds of the run: the straight line that fits the samples
best, and by how much it rises. Flat means by at most a tenth of the mean, or 8 MB when that is more.

${verdicts.join('\n')}`;
}

const HEADER = ['memory', 'mean MB', 'most MB', 'MB an hour', 'risen MB', 'at most MB'];

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

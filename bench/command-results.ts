import type { CommandTimes } from './command-probe.ts';
import { formatCount, formatMs, formatTable } from './figures.ts';
import type { MachineDescription } from './results.ts';

/** Round trips of commands, alone and while readings are stored. */
export interface CommandsResult {
  readonly alone: CommandTimes;
  readonly loaded: CommandTimes;
  /** Messages a second that were to be stored, and that were. */
  readonly offeredPerS: number;
  readonly storedPerS: number;
}

const TRIP_P99_MS = 50;
/** A load that was not sent as offered has met no goal. */
const SENT_SHARE_MIN = 0.97;

/** Whether commands come back in time while readings are stored. */
export function isCommandGoalMet({ loaded, offeredPerS, storedPerS }: CommandsResult): boolean {
  const isSent = storedPerS >= offeredPerS * SENT_SHARE_MIN;
  return isSent && loaded.failed === 0 && loaded.trip.p99Ms <= TRIP_P99_MS;
}

/** The section of bench/RESULTS.md, with its heading. */
export function commandsSection(
  machine: MachineDescription,
  seconds: { readonly warmupS: number; readonly measuredS: number },
  result: CommandsResult,
): string {
  const { alone, loaded, offeredPerS, storedPerS } = result;
  const verdict = isCommandGoalMet(result) ? 'met' : 'NOT MET';
  return `## Round trip of a command

Made by \`npm run bench:commands\`: ten connected devices are sent a command twice a second each with
\`POST …/commands?wait=10s\`, and answer at once. From the request to its answer with the device's result:
two transactions and two messages. Who asks, devices, generator, program and database shared the processors.

- Machine: ${machine.machine}; load before the run: ${machine.loadBefore.toFixed(1)}
- Node.js ${machine.node}; commit ${machine.commit}, ${machine.date}
- ${seconds.warmupS} s of warm-up, ${seconds.measuredS} s measured

${formatTable(
  ['beside it', 'commands', 'to the device p50', 'p99', 'round trip p50', 'p99', 'max', 'failed'],
  [
    row('nothing', alone),
    row(
      `load (a) at half, ${formatCount(storedPerS)} of ${formatCount(offeredPerS)} messages/s`,
      loaded,
    ),
  ],
)}

- Round trip p99 at half of the highest rate: ${formatMs(loaded.trip.p99Ms)}, at most ${formatMs(TRIP_P99_MS)} wanted: ${verdict}`;
}

function row(beside: string, { count, trip, down, failed }: CommandTimes): string[] {
  return [
    beside,
    formatCount(count),
    formatMs(down.p50Ms),
    formatMs(down.p99Ms),
    formatMs(trip.p50Ms),
    formatMs(trip.p99Ms),
    formatMs(trip.maxMs),
    String(failed),
  ];
}

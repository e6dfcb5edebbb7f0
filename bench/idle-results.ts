import { formatCount, formatMs, formatTable } from './figures.ts';
import type { IdleCounts } from './idle-fleet.ts';
import type { MachineDescription } from './results.ts';

/** What the program says of itself at one moment. */
export interface ProgramMark {
  readonly rssBytes: number;
  /** Of the JavaScript heap, in use. */
  readonly heapBytes: number;
  /** Of buffers and other memory outside the JavaScript heap. */
  readonly externalBytes: number;
  /** Processor time since its start. */
  readonly cpuS: number;
  readonly connections: number;
}

/** One run of idle connections. */
export interface IdleResult {
  readonly connections: number;
  readonly isTls: boolean;
  /** From the first connect to the last CONNACK. */
  readonly connectS: number;
  readonly heldS: number;
  /** Before the first connection; after the last CONNACK; when idle since; at the end. */
  readonly before: ProgramMark;
  readonly connected: ProgramMark;
  readonly settled: ProgramMark;
  readonly after: ProgramMark;
  readonly counts: Readonly<IdleCounts>;
}

/** Memory of the program that one plain connection may cost, in KB (1000 bytes). */
export const CONNECTION_KB_MAX = 30;

/** Process memory for each connection in KB: what the program has more at the end than before the first. */
export function kilobytesEach({ before, after, connections }: IdleResult): number {
  return (after.rssBytes - before.rssBytes) / connections / 1000;
}

/** Whether none was lost, none went unanswered, and, over plain TCP, none cost too much. */
export function isIdleGoalMet(result: IdleResult): boolean {
  const { counts, connections } = result;
  const isHeld = counts.lost === 0 && counts.open === connections;
  return isHeld && (result.isTls || kilobytesEach(result) <= CONNECTION_KB_MAX);
}

/** The section of bench/RESULTS.md, with its heading. */
export function idleSection(machine: MachineDescription, result: IdleResult): string {
  const { counts, isTls, heldS } = result;
  const transport = isTls ? 'TLS' : 'plain TCP';
  const minutes = heldS / 60;
  return `## Idle connections, ${transport}

Made by \`npm run bench:idle${isTls ? ' -- --tls' : ''}\`: each connection is a device of its own with keep alive 60 s that sends
PINGREQ every 55 s and nothing else, held for ${minutes < 2 ? minutes.toFixed(1) : Math.round(minutes)} minutes. Clients, program and database shared the processors.

- Machine: ${machine.machine}; load before the run: ${machine.loadBefore.toFixed(1)}
- Node.js ${machine.node}; commit ${machine.commit}, ${machine.date}

${formatTable(HEADER, [row(result)])}

Memory is what the process has more in the end than before the first connection: resident, and the
parts of it that the JavaScript heap and buffers are. What the kernel holds for a socket is not in it.

- ${formatCount(counts.lost)} connections lost${counts.examples.length > 0 ? ` (${counts.examples.join('; ')})` : ''}, ${formatCount(counts.pingsAnswered)} of ${formatCount(counts.pingsSent)} PINGREQ answered
- ${kilobytesEach(result).toFixed(1)} KB each${isTls ? '' : `, at most ${CONNECTION_KB_MAX} wanted: ${isIdleGoalMet(result) ? 'met' : 'NOT MET'}`}`;
}

const HEADER = [
  'connections',
  'connects/s',
  'connect CPU µs',
  'KB each',
  'heap KB each',
  'buffers KB each',
  'CPU while idle',
  'slowest PINGRESP',
];

function row(result: IdleResult): string[] {
  const { before, connected, settled, after, connections } = result;
  const each = (from: number, to: number): string => ((to - from) / connections / 1000).toFixed(1);
  const idleShare = ((after.cpuS - settled.cpuS) / result.heldS) * 100;
  return [
    formatCount(connections),
    formatCount(connections / result.connectS),
    formatCount(((connected.cpuS - before.cpuS) / connections) * 1e6),
    each(before.rssBytes, after.rssBytes),
    each(before.heapBytes, after.heapBytes),
    each(before.externalBytes, after.externalBytes),
    `${idleShare.toFixed(1)} %`,
    formatMs(result.counts.slowestPingMs),
  ];
}

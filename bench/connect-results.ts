import { formatCount, formatMs, formatTable } from './figures.ts';
import type { MachineDescription } from './results.ts';

/** Connects one after the other on a few connections at once. */
export interface ConnectRun {
  readonly title: string;
  readonly connects: number;
  readonly resumed: number;
  readonly seconds: number;
  /** CPU µs of the program for a connect with its close; null where it cannot be known. */
  readonly programCpuUs: number | null;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** A fleet that loses its connections at once and comes back. */
export interface StormRun {
  readonly title: string;
  readonly devices: number;
  readonly letIn: number;
  readonly resumed: number;
  /** Time over which the fleet comes back, and time of the last CONNACK, both from the first connect. */
  readonly spreadS: number;
  readonly lastS: number;
  readonly programCpuUs: number | null;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Transactions of the database meanwhile, for logins, presence and history together. */
  readonly transactions: number;
}

/** Longest time that a storm may take, in s. */
const STORM_S_MAX = 30;

/** Whether every device of every storm was let in, and in time. */
export function isServed(storms: readonly StormRun[]): boolean {
  return storms.every(({ devices, letIn, lastS }) => letIn === devices && lastS <= STORM_S_MAX);
}

/** The section of bench/RESULTS.md, with its heading. */
export function connectSection(
  machine: MachineDescription,
  runs: readonly ConnectRun[],
  storms: readonly StormRun[],
): string {
  return `## Connects

Made by \`npm run bench:connects\`: CONNECT with a key, CONNACK, close, on 32 connections at once; the TLS
certificate is of P-256. Clients, program and database shared the processors, and a client spends more
than the program, so µs tell more than connects/s.

- Machine: ${machine.machine}; load before the run: ${machine.loadBefore.toFixed(1)}
- Node.js ${machine.node}; commit ${machine.commit}, ${machine.date}

${formatTable(
  ['connects', 'connects/s', 'program µs', 'CONNACK p50', 'p99', 'resumed'],
  runs.map(runRow),
)}

A storm: every device loses its connection at once and connects again at a random time within
${formatCount(storms[0]?.spreadS ?? 0)} s. CONNACK is timed from the connect of its device.

${formatTable(
  [
    'storm',
    'let in',
    'last CONNACK',
    'program µs',
    'CONNACK p50',
    'p99',
    'resumed',
    'transactions',
  ],
  storms.map(stormRow),
)}

- ${storms.length} storms: ${isServed(storms) ? 'every device let in' : 'NOT every device let in'}, last CONNACK within ${STORM_S_MAX} s wanted`;
}

function runRow(run: ConnectRun): string[] {
  return [
    run.title,
    formatCount(run.connects / run.seconds),
    microseconds(run.programCpuUs),
    formatMs(run.p50Ms),
    formatMs(run.p99Ms),
    share(run.resumed, run.connects),
  ];
}

function stormRow(storm: StormRun): string[] {
  return [
    `${formatCount(storm.devices)} devices, ${storm.title}`,
    formatCount(storm.letIn),
    formatMs(storm.lastS * 1000),
    microseconds(storm.programCpuUs),
    formatMs(storm.p50Ms),
    formatMs(storm.p99Ms),
    share(storm.resumed, storm.letIn),
    formatCount(storm.transactions),
  ];
}

function microseconds(value: number | null): string {
  return value === null ? '–' : formatCount(value);
}

function share(part: number, whole: number): string {
  return whole === 0 ? '–' : `${Math.round((part / whole) * 100)} %`;
}

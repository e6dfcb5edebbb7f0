import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { reasonOf } from '../errors.ts';
import type { ConnectClient, ConnectTarget } from './connect-client.ts';
import type { ConnectRun, StormRun } from './connect-results.ts';
import { processorTime } from './processor-time.ts';
import type { Program } from './program.ts';

/** Connections that are open at once where connects are counted. */
export const CONNECTS_AT_ONCE = 32;
const WARM_UP_MS = 3000;
/** Statistics of the database come with a delay of up to a second. */
const STATISTICS_MS = 1500;

/** A kind of connect. */
export interface ConnectKind {
  readonly title: string;
  readonly tls: ConnectTarget['tls'];
  readonly resumes: boolean;
}

/** How much is measured. */
export interface ConnectPlan {
  readonly measuredMs: number;
  readonly devices: number;
  readonly spreadMs: number;
}

/** What is measured. */
export interface ConnectSubject {
  readonly program: Program;
  readonly client: pg.Client;
  readonly clients: readonly ConnectClient[];
  readonly targetOf: (kind: ConnectKind) => ConnectTarget;
}

/** Connects again and again for a while, on {@link CONNECTS_AT_ONCE} connections. */
export async function measureRun(
  { program, clients, targetOf }: ConnectSubject,
  kind: ConnectKind,
  measuredMs: number,
): Promise<ConnectRun> {
  const busy = clients.slice(0, CONNECTS_AT_ONCE);
  const target = targetOf(kind);
  let times: number[] = [];
  let isRunning = true;
  const loops = busy.map(async (client) => {
    while (isRunning) {
      times.push(await client.connect(target));
      await client.drop();
    }
  });
  const failed = Promise.all(loops);
  await Promise.race([delay(WARM_UP_MS), failed]);
  times = [];
  const resumedBefore = sumResumed(busy);
  const cpuBefore = await processorTime(program.pid);
  const startedAt = performance.now();
  await Promise.race([delay(measuredMs), failed]);
  const measured = times;
  const cpuAfter = await processorTime(program.pid);
  const seconds = (performance.now() - startedAt) / 1000;
  const connects = measured.length;
  const resumed = sumResumed(busy) - resumedBefore;
  isRunning = false;
  await failed;
  return {
    title: kind.title,
    connects,
    resumed: Math.min(resumed, connects),
    seconds,
    programCpuUs: perConnect(cpuBefore, cpuAfter, connects),
    ...percentiles(measured.slice(0, connects)),
  };
}

/** Lets every client come back at a random time. */
export async function measureStorm(
  { program, client, clients, targetOf }: ConnectSubject,
  kind: ConnectKind,
  plan: ConnectPlan,
): Promise<StormRun> {
  const target = targetOf(kind);
  // They were connected before: with a ticket, and known to the program.
  await Promise.all(clients.map((each) => comeBack(each, target, plan.spreadMs)));
  await Promise.all(clients.map((each) => each.drop()));
  const transactionsBefore = await countTransactions(client);
  const resumedBefore = sumResumed(clients);
  const cpuBefore = await processorTime(program.pid);
  const startedAt = performance.now();
  let lastMs = 0;
  const times: number[] = [];
  await Promise.all(
    clients.map(async (each) => {
      const ms = await comeBack(each, target, plan.spreadMs);
      if (ms === null) return;
      times.push(ms);
      lastMs = performance.now() - startedAt;
    }),
  );
  const cpuAfter = await processorTime(program.pid);
  const transactions = (await countTransactions(client)) - transactionsBefore;
  await Promise.all(clients.map((each) => each.drop()));
  return {
    title: kind.title,
    devices: clients.length,
    letIn: times.length,
    resumed: sumResumed(clients) - resumedBefore,
    spreadS: plan.spreadMs / 1000,
    lastS: lastMs / 1000,
    programCpuUs: perConnect(cpuBefore, cpuAfter, times.length),
    ...percentiles(times),
    transactions,
  };
}

/** @returns ms to CONNACK, or null when the device was not let in, which is told. */
async function comeBack(
  client: ConnectClient,
  target: ConnectTarget,
  spreadMs: number,
): Promise<number | null> {
  await delay(Math.random() * spreadMs);
  try {
    return await client.connect(target);
  } catch (error) {
    process.stderr.write(`not let in: ${reasonOf(error)}\n`);
    return null;
  }
}

async function countTransactions(client: pg.Client): Promise<number> {
  await delay(STATISTICS_MS);
  const { rows } = await client.query<{ count: string }>(
    'SELECT xact_commit + xact_rollback AS count FROM pg_stat_database WHERE datname = current_database()',
  );
  return Number(rows[0]?.count);
}

function sumResumed(clients: readonly ConnectClient[]): number {
  return clients.reduce((sum, { resumed }) => sum + resumed, 0);
}

function perConnect(before: number | null, after: number | null, connects: number): number | null {
  return before === null || after === null || connects === 0 ? null : (after - before) / connects;
}

function percentiles(times: readonly number[]): { p50Ms: number; p99Ms: number } {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.floor((sorted.length - 1) * share)] ?? 0;
  return { p50Ms: at(0.5), p99Ms: at(0.99) };
}

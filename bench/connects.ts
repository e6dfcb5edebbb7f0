import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import type pg from 'pg';
import { findPackageRoot } from '../drizzle/package-root.ts';
import { reasonOf, ToolFailedError } from '../errors.ts';
import { ApiClient } from './api-client.ts';
import { countOption, durationOption, interruption, runTool } from './command-line.ts';
import type { OptionTable } from './command-line.ts';
import { ConnectClient, type ConnectTarget } from './connect-client.ts';
import { connectSection, isServed, type ConnectRun, type StormRun } from './connect-results.ts';
import { findDatabaseUrl, withDatabase } from './database-client.ts';
import { formatCount } from './figures.ts';
import { provisionFleet } from './fleet-keys.ts';
import { processorTime } from './processor-time.ts';
import { startProgram, stopLeftDatabase, type Program } from './program.ts';
import { createProgress, type Progress } from './progress.ts';
import { replaceSection } from './result-sections.ts';
import { describeMachine } from './results.ts';
import { makeScratchFolder, type ScratchFolder } from './scratch-folder.ts';

const HELP = `Measures what a connect costs the program, plain and over TLS with and without session resumption, and
whether a whole fleet is let in that comes back at once. It starts the program on a temporary data folder
with the limits by address lifted. A run with the defaults writes a section of bench/RESULTS.md.

  npm run bench:connects -- [options]

  --seconds D      measured time of each kind of connect                        (5)
  --devices N      devices of the storm                                      (5000)
  --spread D       time over which they come back                              (10)
  --help

Exit status: 0 every device of every storm was let in within 30 s, 1 not, 2 the run could not take place.
`;

const OPTIONS: OptionTable = {
  seconds: { type: 'string' },
  devices: { type: 'string' },
  spread: { type: 'string' },
};

const CONNECTS_AT_ONCE = 32;
const WARM_UP_MS = 1000;
/** Statistics of the database come with a delay of up to a second. */
const STATISTICS_MS = 1500;

interface Kind {
  readonly title: string;
  readonly tls: ConnectTarget['tls'];
  readonly resumes: boolean;
}
const PLAIN: Kind = { title: 'plain TCP', tls: null, resumes: false };
const RESUMED: Kind = { title: 'TLS 1.3, resumed', tls: 'TLSv1.3', resumes: true };
const KINDS: readonly Kind[] = [
  PLAIN,
  { title: 'TLS 1.2', tls: 'TLSv1.2', resumes: false },
  { title: 'TLS 1.2, resumed', tls: 'TLSv1.2', resumes: true },
  { title: 'TLS 1.3', tls: 'TLSv1.3', resumes: false },
  RESUMED,
];
const STORMS: readonly Kind[] = [PLAIN, RESUMED];

interface Plan {
  readonly measuredMs: number;
  readonly devices: number;
  readonly spreadMs: number;
}

/** What is measured. */
interface Subject {
  readonly program: Program;
  readonly client: pg.Client;
  readonly clients: readonly ConnectClient[];
  readonly targetOf: (kind: Kind) => ConnectTarget;
}

const [loadBefore = 0] = loadavg();

await runTool(HELP, OPTIONS, async (options) => {
  const plan: Plan = {
    measuredMs: durationOption(options, 'seconds', 5) * 1000,
    devices: countOption(options, 'devices', 5000, [CONNECTS_AT_ONCE, 20_000]),
    spreadMs: durationOption(options, 'spread', 10) * 1000,
  };
  const progress = createProgress(process.stderr);
  const interrupted = interruption();
  const scratch = await makeScratchFolder('connects');
  try {
    const run = measureConnects(scratch, plan, progress);
    const { runs, storms } = await Promise.race([run, failOn(interrupted)]);
    progress.end();
    const section = connectSection(await describeMachine(loadBefore), runs, storms);
    process.stdout.write(`${section}\n`);
    if (process.argv.length === 2) {
      const path = join(findPackageRoot(), 'bench', 'RESULTS.md');
      await replaceSection(path, section);
      process.stdout.write(`\nwritten to ${path}\n`);
    }
    return isServed(storms) ? 0 : 1;
  } finally {
    progress.end();
    await stopLeftDatabase(scratch.dataDir);
    await scratch.remove();
  }
});

async function measureConnects(
  scratch: ScratchFolder,
  plan: Plan,
  progress: Progress,
): Promise<{ runs: ConnectRun[]; storms: StormRun[] }> {
  const tlsPort = await findFreePort();
  progress.step('starting the program');
  const program = await startProgram({ ...scratch, environment: await settings(scratch, tlsPort) });
  try {
    const { httpUrl, adminKey, mqttUrl } = program.credentials;
    const name = { prefix: 'connect', keyName: 'bench', tags: [] };
    const api = new ApiClient(httpUrl, adminKey);
    const boards = await provisionFleet(api, name, plan.devices, (ready) => {
      progress.show(`${formatCount(ready)} of ${formatCount(plan.devices)} devices have a key`);
      return true;
    });
    const clients = boards.map((board) => new ConnectClient(board.number, board));
    const { hostname: host, port } = new URL(mqttUrl);
    const targetOf = ({ tls, resumes }: Kind): ConnectTarget => {
      return { host, port: tls === null ? Number(port) : tlsPort, tls, resumes };
    };
    return await withDatabase(await findDatabaseUrl(scratch.dataDir), async (client) => {
      const subject: Subject = { program, client, clients, targetOf };
      const runs: ConnectRun[] = [];
      for (const kind of KINDS) {
        progress.step(`connects, ${kind.title}`);
        runs.push(await measureRun(subject, kind, plan.measuredMs));
      }
      const storms: StormRun[] = [];
      for (const kind of STORMS) {
        progress.step(`storm, ${kind.title}`);
        storms.push(await measureStorm(subject, kind, plan));
      }
      return { runs, storms };
    });
  } finally {
    await program.stop();
  }
}

async function measureRun(
  { program, clients, targetOf }: Subject,
  kind: Kind,
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

async function measureStorm(
  { program, client, clients, targetOf }: Subject,
  kind: Kind,
  plan: Plan,
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

async function settings({ path }: ScratchFolder, tlsPort: number): Promise<Record<string, string>> {
  const [keyFile, certFile] = [join(path, 'key.pem'), join(path, 'cert.pem')];
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  const names = ['-subj', '/CN=localhost', '-days', '2', '-keyout', keyFile, '-out', certFile];
  await promisify(execFile)('openssl', ['req', '-x509', ...curve, ...names]).catch((cause) => {
    throw new ToolFailedError('openssl cannot make a certificate', { cause });
  });
  return {
    MQTT_PORT: '0',
    HTTP_PORT: '0',
    MQTTS_PORT: String(tlsPort),
    TLS_CERT_FILE: certFile,
    TLS_KEY_FILE: keyFile,
    ADDRESS_CONNECTIONS_MAX: '0',
    ADDRESS_UNAUTHENTICATED_MAX: '0',
    ADDRESS_CONNECTS_PER_S: '0',
    LOG_LEVEL: 'warn',
  };
}

/** The file of credentials names the plain port alone, so that of TLS is chosen here. */
async function findFreePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}

function failOn(interrupted: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    interrupted.addEventListener('abort', () => reject(new ToolFailedError('interrupted')));
  });
}

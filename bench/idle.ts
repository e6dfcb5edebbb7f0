import { loadavg } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { findPackageRoot } from '../drizzle/package-root.ts';
import { ToolFailedError } from '../errors.ts';
import { ApiClient } from './api-client.ts';
import {
  countOption,
  interruption,
  numberOption,
  runTool,
  type OptionTable,
} from './command-line.ts';
import { provisionFleet } from './fleet-keys.ts';
import { formatCount } from './figures.ts';
import { IdleFleet } from './idle-fleet.ts';
import { idleSection, isIdleGoalMet, type IdleResult, type ProgramMark } from './idle-results.ts';
import { startProgram, stopLeftDatabase, type Program } from './program.ts';
import { createProgress, type Progress } from './progress.ts';
import { describeMachine } from './results.ts';
import { replaceSection } from './result-sections.ts';
import { makeScratchFolder, type ScratchFolder } from './scratch-folder.ts';
import { findFreePort, makeTlsFiles } from './tls-settings.ts';

const HELP = `Holds idle connections with a keep alive of 60 s, each of a device of its own, and measures what one
costs the program: memory, processor time, and how many were lost. It starts the program on a temporary
data folder. A run of the full size writes a section of bench/RESULTS.md.

  npm run bench:idle -- [options]

  --connections N  connections                                              (10000)
  --minutes M      how long they are held                                      (10)
  --tls            over TLS, with a certificate that openssl makes
  --help

The program needs an open file for each connection, and so does this tool: "ulimit -Hn" must be some
hundreds above the connections. Node.js raises the soft limit by itself.

Exit status: 0 none lost and at most 30 KB each (plain), 1 otherwise, 2 the run could not take place.
`;

const OPTIONS: OptionTable = {
  connections: { type: 'string' },
  minutes: { type: 'string' },
  tls: { type: 'boolean' },
};

const FULL_CONNECTIONS = 10_000;
const FULL_MINUTES = 10;
const KEEP_ALIVE_S = 60;
/** What start and provisioning left behind is collected in this time, and what connecting left. */
const SETTLE_MS = 10_000;

await runTool(HELP, OPTIONS, async (options) => {
  const connections = countOption(options, 'connections', FULL_CONNECTIONS, [1, 500_000]);
  const minutes = numberOption(options, 'minutes', FULL_MINUTES, [0.05, 24 * 60]);
  const [loadBefore = 0] = loadavg();
  const progress = createProgress(process.stderr);
  const interrupted = interruption();
  const scratch = await makeScratchFolder('idle');
  try {
    const plan = { connections, minutes, isTls: options['tls'] === true };
    const result = await Promise.race([measureIdle(scratch, plan, progress), failOn(interrupted)]);
    progress.end();
    const machine = await describeMachine(loadBefore);
    const section = idleSection(machine, result);
    process.stdout.write(`${section}\n`);
    if (isFull(result)) {
      const path = join(findPackageRoot(), 'bench', 'RESULTS.md');
      await replaceSection(path, section);
      process.stdout.write(`\nwritten to ${path}\n`);
    }
    return isIdleGoalMet(result) ? 0 : 1;
  } finally {
    progress.end();
    await stopLeftDatabase(scratch.dataDir);
    await scratch.remove();
  }
});

interface IdlePlan {
  readonly connections: number;
  readonly minutes: number;
  readonly isTls: boolean;
}

function isFull({ connections, heldS }: IdleResult): boolean {
  return connections >= FULL_CONNECTIONS && heldS >= FULL_MINUTES * 60 - 1;
}

/** Keys are made by a first run of the program, so that the second one is measured without their traces. */
async function measureIdle(
  scratch: ScratchFolder,
  plan: IdlePlan,
  progress: Progress,
): Promise<IdleResult> {
  const tlsPort = plan.isTls ? await findFreePort() : 0;
  const environment = await settings(scratch, plan, tlsPort);
  const start = (): Promise<Program> => startProgram({ ...scratch, environment });
  progress.step('starting the program');
  const first = await start();
  const name = { prefix: 'idle', keyName: 'idle', tags: [] };
  const { httpUrl, adminKey } = first.credentials;
  const boards = await provisionFleet(
    new ApiClient(httpUrl, adminKey),
    name,
    plan.connections,
    (n) => {
      progress.show(`${formatCount(n)} of ${formatCount(plan.connections)} devices have a key`);
      return true;
    },
  );
  await first.stop();
  const program = await start();
  try {
    const keys = boards.map(({ key }) => key);
    return await hold(program, keys, { ...plan, tlsPort }, progress);
  } finally {
    await program.stop();
  }
}

async function hold(
  program: Program,
  keys: readonly string[],
  { isTls, minutes, tlsPort }: IdlePlan & { readonly tlsPort: number },
  progress: Progress,
): Promise<IdleResult> {
  const api = new ApiClient(program.credentials.httpUrl, program.credentials.adminKey);
  const { hostname: host, port } = new URL(program.credentials.mqttUrl);
  const fleet = new IdleFleet({
    host,
    port: isTls ? tlsPort : Number(port),
    isTls,
    keepAliveS: KEEP_ALIVE_S,
  });
  await delay(SETTLE_MS);
  const before = await markOf(api);
  const startedAt = performance.now();
  await fleet.open(keys, (open) => progress.show(`${formatCount(open)} connected`));
  const connectS = (performance.now() - startedAt) / 1000;
  const connected = await markOf(api);
  fleet.keepAlive();
  await delay(SETTLE_MS);
  const settled = await markOf(api);
  const heldFrom = performance.now();
  while (performance.now() - heldFrom < minutes * 60_000) {
    await delay(Math.min(1000, minutes * 60_000));
    const { open, lost } = fleet.counts;
    progress.show(`${formatCount(open)} open, ${formatCount(lost)} lost`);
  }
  const after = await markOf(api);
  const heldS = (performance.now() - heldFrom) / 1000;
  const result = {
    connections: keys.length,
    isTls,
    connectS,
    heldS,
    before,
    connected,
    settled,
    after,
  };
  const counts = { ...fleet.counts };
  fleet.end();
  return { ...result, counts };
}

async function markOf(api: ApiClient): Promise<ProgramMark> {
  const metrics = await api.metrics();
  const value = (name: string): number => metrics.get(name) ?? Number.NaN;
  return {
    rssBytes: value('process_resident_memory_bytes'),
    heapBytes: value('nodejs_heap_size_used_bytes'),
    externalBytes: value('nodejs_external_memory_bytes'),
    cpuS: value('process_cpu_seconds_total'),
    connections: value('puback_broker_connections'),
  };
}

async function settings(
  { path }: ScratchFolder,
  { connections, isTls }: IdlePlan,
  tlsPort: number,
): Promise<Record<string, string>> {
  const plain = {
    MQTT_PORT: '0',
    HTTP_PORT: '0',
    MQTTS_PORT: String(tlsPort),
    ADDRESS_CONNECTIONS_MAX: '0',
    ADDRESS_UNAUTHENTICATED_MAX: '0',
    ADDRESS_CONNECTS_PER_S: '0',
    CONNECTIONS_MAX: String(Math.max(20_000, connections + 100)),
    LOG_LEVEL: 'warn',
  };
  if (!isTls) return plain;
  return { ...plain, ...(await makeTlsFiles(path)) };
}

function failOn(interrupted: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    interrupted.addEventListener('abort', () => reject(new ToolFailedError('interrupted')));
  });
}

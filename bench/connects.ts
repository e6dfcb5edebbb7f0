import { loadavg } from 'node:os';
import { join } from 'node:path';
import { findPackageRoot } from '../drizzle/package-root.ts';
import { ToolFailedError } from '../errors.ts';
import { ApiClient } from './api-client.ts';
import { countOption, durationOption, interruption, runTool } from './command-line.ts';
import type { OptionTable } from './command-line.ts';
import { ConnectClient, type ConnectTarget } from './connect-client.ts';
import { connectSection, isServed, type ConnectRun, type StormRun } from './connect-results.ts';
import {
  CONNECTS_AT_ONCE,
  measureRun,
  measureStorm,
  type ConnectKind,
  type ConnectPlan,
  type ConnectSubject,
} from './connect-runs.ts';
import { findDatabaseUrl, withDatabase } from './database-client.ts';
import { formatCount } from './figures.ts';
import { provisionFleet } from './fleet-keys.ts';
import { startProgram, stopLeftDatabase } from './program.ts';
import { createProgress, type Progress } from './progress.ts';
import { replaceSection } from './result-sections.ts';
import { describeMachine } from './results.ts';
import { makeScratchFolder, type ScratchFolder } from './scratch-folder.ts';
import { findFreePort, makeTlsFiles } from './tls-settings.ts';

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

/** The first thousands of connects run code that is not optimized yet. */
const WARM_UP_MS = 4000;
const PLAIN: ConnectKind = { title: 'plain TCP', tls: null, resumes: false };
const RESUMED: ConnectKind = { title: 'TLS 1.3, resumed', tls: 'TLSv1.3', resumes: true };
const KINDS: readonly ConnectKind[] = [
  PLAIN,
  { title: 'TLS 1.2', tls: 'TLSv1.2', resumes: false },
  { title: 'TLS 1.2, resumed', tls: 'TLSv1.2', resumes: true },
  { title: 'TLS 1.3', tls: 'TLSv1.3', resumes: false },
  RESUMED,
];
const STORMS: readonly ConnectKind[] = [PLAIN, RESUMED];

const [loadBefore = 0] = loadavg();

await runTool(HELP, OPTIONS, async (options) => {
  const plan: ConnectPlan = {
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
  plan: ConnectPlan,
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
    const targetOf = ({ tls, resumes }: ConnectKind): ConnectTarget => {
      return { host, port: tls === null ? Number(port) : tlsPort, tls, resumes };
    };
    return await withDatabase(await findDatabaseUrl(scratch.dataDir), async (client) => {
      const subject: ConnectSubject = { program, client, clients, targetOf };
      progress.step('warming up');
      await measureRun(subject, PLAIN, WARM_UP_MS);
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

async function settings({ path }: ScratchFolder, tlsPort: number): Promise<Record<string, string>> {
  return {
    ...(await makeTlsFiles(path)),
    MQTT_PORT: '0',
    HTTP_PORT: '0',
    MQTTS_PORT: String(tlsPort),
    ADDRESS_CONNECTIONS_MAX: '0',
    ADDRESS_UNAUTHENTICATED_MAX: '0',
    ADDRESS_CONNECTS_PER_S: '0',
    DEVICE_CONNECTS_PER_MIN: '0',
    LOG_LEVEL: 'warn',
  };
}

function failOn(interrupted: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    interrupted.addEventListener('abort', () => reject(new ToolFailedError('interrupted')));
  });
}

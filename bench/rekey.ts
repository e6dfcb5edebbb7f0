import { readFile } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { findPackageRoot } from '../drizzle/package-root.ts';
import { ToolFailedError } from '../errors.ts';
import { ApiClient } from './api-client.ts';
import { withBenchProgram } from './bench-program.ts';
import { countOption, runTool, type OptionTable } from './command-line.ts';
import { findDatabaseUrl, withDatabase } from './database-client.ts';
import type { BoardAccess } from './fleet-keys.ts';
import { startGenerator, type GeneratorProcess } from './generator-process.ts';
import { createProgress } from './progress.ts';
import { isRekeyGoalMet, rekeySection } from './rekey-results.ts';
import { rekeyFleet, type RekeyPlan, type SecondLoad } from './rekey-run.ts';
import { replaceSection } from './result-sections.ts';
import { describeMachine } from './results.ts';

const HELP = `Changes the keys of a fleet with a campaign while its boards publish and a second load is stored.
Boards lose connections, answers and power on purpose; one never answers. Afterwards every acknowledged
reading must be stored once, every board connected, and every old key refused. A full run writes a section
of bench/RESULTS.md.

  npm run bench:rekey -- [options]

  --devices N      boards                                                    (1000)
  --rate N         messages a second of the second load                      (2000)
  --quick          100 boards and short times, to see that it works; writes no file
  --help

Exit status: 0 nothing lost, nobody locked out, old keys refused; 1 otherwise; 2 it could not take place.
`;

const OPTIONS: OptionTable = {
  devices: { type: 'string' },
  rate: { type: 'string' },
  quick: { type: 'boolean' },
};
/** Of the boards; the devices of the second load have another one. */
const TAG = 'rekey';
const LOAD_CONNECTIONS = 20;
const LOAD_SECONDS_MAX = 3600;
const WARMUP_S = 2;
const [loadBefore = 0] = loadavg();

const FULL = {
  graceS: 60,
  plan: {
    tag: TAG,
    pace: { readingMs: 2000, darkMs: 1000, sleepMs: 10_000 },
    canaries: 5,
    waves: [10, 50, 100],
    settle: '2s',
    deviceTimeout: '60s',
    timeoutMs: 600_000,
  } satisfies RekeyPlan,
};
const QUICK = {
  graceS: 8,
  plan: {
    ...FULL.plan,
    pace: { readingMs: 500, darkMs: 300, sleepMs: 2000 },
    waves: [100],
    settle: '1s',
    deviceTimeout: '15s',
  } satisfies RekeyPlan,
};

await runTool(HELP, OPTIONS, async (options) => {
  const isQuick = options['quick'] === true;
  const { graceS, plan } = isQuick ? QUICK : FULL;
  const devices = countOption(options, 'devices', isQuick ? 100 : 1000, [20, 10_000]);
  const offeredPerS = countOption(options, 'rate', 2000, [1, 100_000]);
  const progress = createProgress(process.stderr);
  process.env['KEY_GRACE_S'] = String(graceS);
  const groups = [{ connections: devices }, { connections: LOAD_CONNECTIONS }];
  const outcome = await withBenchProgram('rekey', groups, progress, async (program, files) => {
    const [boardsFile = '', loadFile = ''] = files;
    const { httpUrl, adminKey, mqttUrl } = program.credentials;
    const api = new ApiClient(httpUrl, adminKey);
    const databaseUrl = await findDatabaseUrl(program.dataDir);
    const boards = await readBoards(boardsFile);
    const loadDevices = (await readBoards(loadFile)).map(({ device }) => device);
    await tagBoards(databaseUrl, boards);
    const load = secondLoad(mqttUrl, loadFile, { devices: loadDevices, offeredPerS });
    const target = { api, mqttUrl, databaseUrl };
    return rekeyFleet(target, boards, { plan, load, progress });
  });
  const run = { outcome, readingS: plan.pace.readingMs / 1000, graceS, offeredPerS };
  const section = rekeySection(await describeMachine(loadBefore), run);
  process.stdout.write(`${section}\n`);
  if (process.argv.length === 2) {
    const path = join(findPackageRoot(), 'bench', 'RESULTS.md');
    await replaceSection(path, section);
    process.stdout.write(`\nwritten to ${path}\n`);
  }
  return isRekeyGoalMet(run) ? 0 : 1;
});

async function readBoards(keysFile: string): Promise<BoardAccess[]> {
  return JSON.parse(await readFile(keysFile, 'utf8')) as BoardAccess[];
}

/** All in one statement, past the API. */
async function tagBoards(databaseUrl: string, boards: readonly BoardAccess[]): Promise<void> {
  const devices = boards.map(({ device }) => device);
  await withDatabase(databaseUrl, (client) =>
    client.query('UPDATE device SET tags = $1 WHERE slug = ANY($2)', [[TAG], devices]),
  );
}

/** The generator as a process of its own; when it ends by itself, that is a fault. */
function secondLoad(
  mqttUrl: string,
  keysFile: string,
  { devices, offeredPerS }: { readonly devices: readonly string[]; readonly offeredPerS: number },
): SecondLoad {
  return {
    devices,
    async start() {
      const options = [
        ...['--mqtt-url', mqttUrl, '--keys', keysFile, '--rate', String(offeredPerS)],
        ...['--connections', String(LOAD_CONNECTIONS), '--warmup', String(WARMUP_S)],
        ...['--seconds', String(LOAD_SECONDS_MAX)],
      ];
      const generator = await startMeasuring(options);
      return async () => {
        generator.stop();
        const { result } = generator;
        const { acknowledged, seconds, acknowledgedTotal, ...times } = await result;
        if (times.unacknowledged > 0 || times.connectionsLost > 0) {
          throw new ToolFailedError(`the second load failed: ${JSON.stringify(times)}`);
        }
        return { ...times, perS: acknowledged / seconds, acknowledged: acknowledgedTotal };
      };
    },
  };
}

/** Resolves when its warm-up is over. @throws {ToolFailedError} when the generator fails before. */
async function startMeasuring(options: readonly string[]): Promise<GeneratorProcess> {
  let begun: () => void = () => undefined;
  const measuring = new Promise<void>((resolve) => {
    begun = resolve;
  });
  const generator = startGenerator(options, ({ phase }) => {
    if (phase === 'measuring') begun();
  });
  await Promise.race([measuring, generator.result]);
  return generator;
}

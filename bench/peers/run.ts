import { mkdir } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import type pg from 'pg';
import { startEmbedded, type EmbeddedDatabase } from '../../drizzle/embedded.ts';
import { findPackageRoot } from '../../drizzle/package-root.ts';
import { createLog } from '../../log.ts';
import { failOn, LIFTED_LIMITS, writeKeys } from '../bench-program.ts';
import { durationOption, interruption, runTool, type OptionTable } from '../command-line.ts';
import { withDatabase } from '../database-client.ts';
import { runLoad } from '../load-run.ts';
import { findServerPid, type Durations } from '../measurement.ts';
import { processorTime, processorTimeOfTree } from '../processor-time.ts';
import { startProgram, stopLeftDatabase } from '../program.ts';
import { createProgress, type Progress } from '../progress.ts';
import { replaceSection } from '../result-sections.ts';
import { describeRun } from '../results.ts';
import { scenarios, type Scenario } from '../scenarios.ts';
import { makeScratchFolder, type ScratchFolder } from '../scratch-folder.ts';
import { findMosquitto, startMosquitto } from './mosquitto.ts';
import { measurePeer, type PeerResult } from './peer-measurement.ts';
import { peerSection, peerTable, peerVerdicts, RATIO_MIN, ratios } from './peer-results.ts';
import { dropPeerTable, makePeerTable, PEER_TABLE } from './peer-table.ts';
import { startPeerWriter } from './peer-writer.ts';

const HELP = `Measures how many messages a second arrive in the table, by Puback and by mosquitto with a program that
subscribes and INSERTs in batches, with the loads (a) and (b) of npm run bench, into the same PostgreSQL.
A full run writes a section of bench/RESULTS.md. Without mosquitto it says so and does nothing.

  npm run bench:peers -- [options]

  --quick          a few seconds each, to see that it works; writes no file
  --seconds D      measured time of each, at most 60                           (15)
  --help

Exit status: 0 Puback stores at least ${RATIO_MIN} times as many, or mosquitto is missing, 1 otherwise, 2 the run
could not take place.
`;

const OPTIONS: OptionTable = { quick: { type: 'boolean' }, seconds: { type: 'string' } };
const LOADS = scenarios.filter(({ id }) => id === 'a' || id === 'b');
const [loadBefore = 0] = loadavg();

type Seconds = Pick<Durations, 'warmupS' | 'measuredS'>;

/** What both sides are measured with. */
interface Ground {
  readonly scratch: ScratchFolder;
  readonly database: EmbeddedDatabase;
  readonly client: pg.Client;
  readonly databasePid: number | null;
  readonly seconds: Seconds;
  readonly progress: Progress;
}

await runTool(HELP, OPTIONS, async (options) => {
  const version = findMosquitto();
  if (version === null) {
    process.stderr.write('SKIPPED: mosquitto is not installed (apt-get install mosquitto)\n');
    return 0;
  }
  const isQuick = options['quick'] === true;
  const seconds = isQuick
    ? { warmupS: 1, measuredS: 3 }
    : { warmupS: 4, measuredS: Math.min(60, durationOption(options, 'seconds', 15)) };
  const progress = createProgress(process.stderr);
  const scratch = await makeScratchFolder('peers');
  const databaseDir = join(scratch.path, 'database');
  try {
    await mkdir(databaseDir, { mode: 0o700 });
    const database = await startEmbedded({ dataDir: databaseDir, log: createLog('error') });
    try {
      const bench = measureAll({ scratch, database, seconds, progress }, version);
      const { results, section } = await Promise.race([bench, failOn(interruption())]);
      progress.end();
      process.stdout.write(`${peerTable(results)}\n\n${peerVerdicts(results).join('\n')}\n`);
      if (process.argv.length === 2) {
        const path = join(findPackageRoot(), 'bench', 'RESULTS.md');
        await replaceSection(path, section);
        process.stdout.write(`\nwritten to ${path}\n`);
      }
      return [...ratios(results).values()].every((ratio) => ratio >= RATIO_MIN) ? 0 : 1;
    } finally {
      await database.stop();
    }
  } finally {
    progress.end();
    await stopLeftDatabase(databaseDir);
    await scratch.remove();
  }
});

async function measureAll(
  parts: Omit<Ground, 'client' | 'databasePid'>,
  version: string,
): Promise<{ results: PeerResult[]; section: string }> {
  return withDatabase(parts.database.url, async (client) => {
    const ground: Ground = { ...parts, client, databasePid: await findServerPid(client) };
    const { keysFiles, results: own } = await measurePuback(ground);
    const peers = await measurePeers(ground, keysFiles, version);
    const results = LOADS.flatMap((scenario) =>
      [...own, ...peers].filter((result) => result.scenario === scenario),
    );
    const run = await describeRun(client, 'npm run bench:peers', loadBefore);
    return { results, section: peerSection(run, parts.seconds, results, version) };
  });
}

async function measurePuback(
  ground: Ground,
): Promise<{ keysFiles: string[]; results: PeerResult[] }> {
  const { scratch, database, progress } = ground;
  progress.step('starting Puback');
  const program = await startProgram({
    dataDir: scratch.dataDir,
    logFile: scratch.logFile,
    environment: { ...LIFTED_LIMITS, DATABASE_URL: database.url },
  });
  try {
    const keysFiles = await writeKeys(program, scratch, LOADS, progress);
    const results: PeerResult[] = [];
    for (const [index, scenario] of LOADS.entries()) {
      progress.step(`(${scenario.id}) Puback`);
      const { mqttUrl } = program.credentials;
      results.push(
        await runPuback(ground, scenario, keysFiles[index] ?? '', { ...program, mqttUrl }),
      );
    }
    return { keysFiles, results };
  } finally {
    await program.stop();
  }
}

/** An acknowledged message is stored: nothing has to be waited for. */
async function runPuback(
  { databasePid, seconds }: Ground,
  scenario: Scenario,
  keysFile: string,
  { pid, mqttUrl }: { readonly pid: number; readonly mqttUrl: string },
): Promise<PeerResult> {
  const readMark = async () => ({
    program: await processorTime(pid),
    database: databasePid === null ? null : await processorTimeOfTree(databasePid),
  });
  const load = { ...scenario, ...seconds, mqttUrl, keysFile };
  const { generator, before, after } = await runLoad(load, readMark);
  const each = (from: number | null, to: number | null): number | null =>
    from === null || to === null ? null : (to - from) / Math.max(1, generator.acknowledged);
  return {
    name: 'Puback',
    scenario,
    messagesPerS: generator.acknowledged / generator.seconds,
    brokerCpuUs: each(before.program, after.program),
    writerCpuUs: 0,
    databaseCpuUs: each(before.database, after.database),
    offeredPerS: null,
    drainS: 0,
    lost: 0,
  };
}

async function measurePeers(
  { scratch, database, client, databasePid, seconds, progress }: Ground,
  keysFiles: readonly string[],
  version: string,
): Promise<PeerResult[]> {
  progress.step('starting mosquitto and the writer');
  await makePeerTable(client);
  const broker = await startMosquitto(scratch.path, version);
  try {
    const writer = await startPeerWriter(broker.mqttUrl, database.url, PEER_TABLE);
    try {
      const peer = { broker, writer, client, databasePid };
      const results: PeerResult[] = [];
      for (const [index, scenario] of LOADS.entries()) {
        const tell = (line: string): void => progress.step(`(${scenario.id}) the peer: ${line}`);
        const keysFile = keysFiles[index] ?? '';
        results.push(await measurePeer(peer, scenario, seconds, keysFile, tell));
      }
      return results;
    } finally {
      await writer.stop();
    }
  } finally {
    await broker.stop();
    await dropPeerTable(client);
  }
}

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  AcknowledgementCheck,
  readAcknowledgements,
  type CheckResult,
} from './acknowledgement-check.ts';
import { ToolFailedError } from '../errors.ts';
import { ApiClient } from './api-client.ts';
import { findEmbeddedUrl, withDatabase } from './database-client.ts';
import { provisionFleet } from './fleet-keys.ts';
import { startGenerator, type GeneratorProcess } from './generator-process.ts';
import type { GeneratorResult } from './generator.ts';
import type { Credentials } from './credentials.ts';
import { createRandom } from './random.ts';
import { SilenceFinder, type Fault, type FaultRecord, type Strike } from './silence-finder.ts';
import type { ScratchFolder } from './scratch-folder.ts';
import { Supervisor } from './supervisor.ts';

/** A run of faults under load. */
export interface CrashPlan {
  folder: ScratchFolder;
  faults: readonly [Fault, ...Fault[]];
  /** Ends after so many faults, or after this time, or when the signal aborts. */
  faultsMax: number;
  durationS: number;
  interrupted?: AbortSignal;
  /** The same seed gives the same faults at the same distances. */
  seed: number;
  connections: number;
  window: number;
  ratePerS: number;
  /** Longest time from one recovery to the next fault, ms. */
  pauseMsMax: number;
  /** Called for each fault, once it struck, with the messages acknowledged so far. */
  onFault?: (fault: Fault, acknowledged: number) => void;
}

/** What a run found. Nothing may be lost, twice or altered in `check`. */
export interface CrashReport {
  faults: FaultRecord[];
  check: CheckResult;
  generator: GeneratorResult;
  /** How often the program ended by itself, as it must not when only its database dies. */
  ownExits: number;
}

const ENVIRONMENT = {
  // Always the embedded database: another one could not be killed.
  DATABASE_URL: '',
  DEVICE_MESSAGES_PER_S: '0',
  DEVICE_POINTS_PER_S: '0',
  ORGANIZATION_MESSAGES_PER_S: '0',
  ADDRESS_CONNECTIONS_MAX: '0',
  ADDRESS_UNAUTHENTICATED_MAX: '0',
  ADDRESS_CONNECTS_PER_S: '0',
  DEVICE_CONNECTS_PER_MIN: '0',
};
const RECOVERY_MS_MAX = 60_000;
/** More than the generator's news take, so that two looks at its count differ only by new PUBACKs. */
const LOOK_EVERY_MS = 600;
/** One fault in five strikes while the one before may still be felt. */
const STRIKES_EARLY = 0.2;

/**
 * Runs the program under numbered load, strikes it at random moments, starts it again as an init system
 * would, and at the end compares every PUBACK that arrived with the rows.
 * @throws {ToolFailedError} when the program cannot be started (again), with the end of its log.
 */
export async function runCrashRounds(plan: CrashPlan): Promise<CrashReport> {
  const { dataDir, logFile } = plan.folder;
  const supervisor = await Supervisor.start({ dataDir, logFile, environment: ENVIRONMENT });
  let generator: GeneratorProcess | null = null;
  try {
    const { credentials } = await supervisor.program;
    const { devices, keysFile } = await makeKeys(plan, credentials);
    const ackLog = join(plan.folder.path, 'acknowledged.log');
    generator = startLoad(plan, credentials.mqttUrl, keysFile, ackLog);
    const strikes = await strike(plan, supervisor, generator);
    generator.stop();
    const result = await generator.result;
    await supervisor.program;
    const { faults, check } = await judge(ackLog, strikes, dataDir, devices);
    return { faults, check, generator: result, ownExits: supervisor.ownExits };
  } finally {
    generator?.kill();
    await supervisor.stop();
  }
}

async function makeKeys(
  plan: CrashPlan,
  { httpUrl, adminKey }: Credentials,
): Promise<{ devices: string[]; keysFile: string }> {
  const name = { prefix: 'chaos', keyName: 'chaos', tags: ['chaos'] };
  const boards = await provisionFleet(new ApiClient(httpUrl, adminKey), name, plan.connections);
  const keysFile = join(plan.folder.path, 'keys.json');
  await writeFile(keysFile, JSON.stringify(boards), { mode: 0o600 });
  return { devices: boards.map(({ device }) => device), keysFile };
}

function startLoad(
  plan: CrashPlan,
  mqttUrl: string,
  keysFile: string,
  ackLog: string,
): GeneratorProcess {
  return startGenerator([
    ...['--mqtt-url', mqttUrl, '--keys', keysFile, '--payload', 'numbered', '--reconnect'],
    ...['--connections', String(plan.connections), '--window', String(plan.window)],
    ...['--rate', String(plan.ratePerS), '--ack-log', ackLog, '--warmup', '0.1'],
    // Longer than any run: it ends when it is told to.
    ...['--seconds', '24h'],
  ]);
}

/** Strikes until the plan is done. */
async function strike(
  plan: CrashPlan,
  supervisor: Supervisor,
  generator: GeneratorProcess,
): Promise<Strike[]> {
  const random = createRandom(plan.seed);
  const strikes: Strike[] = [];
  const endMs = performance.now() + plan.durationS * 1000;
  const isOver = (): boolean =>
    strikes.length >= plan.faultsMax ||
    performance.now() >= endMs ||
    plan.interrupted?.aborted === true;
  await waitForAcknowledgements(generator);
  while (!isOver()) {
    await delay(random.between(0, plan.pauseMsMax));
    const fault = random.pick(plan.faults);
    const { acknowledged } = generator;
    const atMs = Date.now();
    if (!(await applyFault(fault, supervisor))) continue;
    strikes.push({ fault, atMs });
    plan.onFault?.(fault, acknowledged);
    if (random.between(0, 1) >= STRIKES_EARLY) await waitForAcknowledgements(generator);
    await supervisor.program;
  }
  await waitForAcknowledgements(generator);
  return strikes;
}

/** @returns false when there was nothing to strike */
async function applyFault(fault: Fault, supervisor: Supervisor): Promise<boolean> {
  if (fault === 'kill-database') return supervisor.killDatabase();
  if (fault === 'kill-both') await supervisor.killDatabase();
  const exit = await supervisor.restart(fault === 'restart-program' ? 'SIGTERM' : 'SIGKILL');
  if (fault === 'restart-program' && exit.code !== 0) {
    throw new ToolFailedError(
      `SIGTERM did not end the program with status 0: ${JSON.stringify(exit)}`,
    );
  }
  return true;
}

/** @throws {ToolFailedError} when none comes for a minute: the program did not recover by itself. */
async function waitForAcknowledgements(generator: GeneratorProcess): Promise<void> {
  const deadline = performance.now() + RECOVERY_MS_MAX;
  // What was under way when the fault struck has arrived, and been told, before the first look.
  await delay(LOOK_EVERY_MS);
  for (;;) {
    const before = generator.acknowledged;
    const ended = await Promise.race([delay(LOOK_EVERY_MS), generator.result]);
    if (ended !== undefined) throw new ToolFailedError('the generator ended before it was told to');
    if (generator.acknowledged > before) return;
    if (performance.now() > deadline) {
      throw new ToolFailedError('no PUBACK for a minute: the program did not recover');
    }
  }
}

async function judge(
  ackLog: string,
  strikes: readonly Strike[],
  dataDir: string,
  devices: readonly string[],
): Promise<{ faults: FaultRecord[]; check: CheckResult }> {
  const check = new AcknowledgementCheck();
  const silences = new SilenceFinder(strikes);
  for await (const acknowledgement of readAcknowledgements(ackLog)) {
    check.add(acknowledgement);
    silences.add(acknowledgement.acknowledgedAtMs);
  }
  const url = await findEmbeddedUrl(dataDir);
  return {
    faults: silences.records,
    check: await withDatabase(url, (client) => check.compare(client, devices)),
  };
}

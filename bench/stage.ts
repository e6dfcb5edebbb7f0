import { join } from 'node:path';
import type { AcknowledgementCheck } from './acknowledgement-check.ts';
import { ApiClient } from './api-client.ts';
import { findEmbeddedUrl, withDatabase } from './database-client.ts';
import { DatabaseServer } from './database-server.ts';
import { provisionFleet, type BoardAccess } from './fleet-keys.ts';
import { PoisonDevice, refusePoison } from './poison-device.ts';
import { createRandom } from './random.ts';
import { ScratchDisk } from './scratch-disk.ts';
import type { ScratchFolder } from './scratch-folder.ts';
import { StepClock } from './step-clock.ts';
import { Supervisor } from './supervisor.ts';
import { TcpProxy } from './tcp-proxy.ts';
import { UNRULY_DEVICES, UnrulyFleet } from './unruly-fleet.ts';

/** What a run of faults is played on: the program, its database, and what lies between them. */
export interface Stage {
  readonly program: Supervisor;
  /** The database server of this run; null when the program has its embedded one. */
  readonly server: DatabaseServer | null;
  /** The way from the program to that server. */
  readonly databaseProxy: TcpProxy | null;
  /** Connection string with which the program logs in, past the proxy. */
  readonly programDatabaseUrl: string;
  /** Connection string of who sees every row, past the proxy. */
  readonly ownerDatabaseUrl: string;
  /** The way from the devices to the program. */
  readonly mqttProxy: TcpProxy;
  readonly mqttUrl: string;
  readonly httpUrl: string;
  /** The wall clock of the program; null where it is not moved. */
  readonly clock: StepClock | null;
  /** The disk of the spool; null where it is none of its own. */
  readonly spoolDisk: ScratchDisk | null;
  /** Devices with their keys for the load. */
  readonly boards: readonly BoardAccess[];
  readonly unruly: UnrulyFleet;
  /** Every device whose messages are numbered. */
  readonly devices: readonly string[];
  /** Null without a server of this run. */
  readonly poison: PoisonDevice | null;
}

/** What a stage is built of. */
export interface StageOptions {
  readonly folder: ScratchFolder;
  /** False: the program has its embedded database, and faults that need a server cannot strike. */
  readonly hasServer: boolean;
  readonly hasStepClock: boolean;
  readonly hasSpoolDisk: boolean;
  readonly boards: number;
  readonly seed: number;
  readonly check: AcknowledgementCheck;
  /** Settings of the program that win over those of every run. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** Takes what is to be done at the end, in reverse order. */
export type OnStop = (stop: () => Promise<void> | void) => void;

const ENVIRONMENT = {
  DATABASE_URL: '',
  DATABASE_TIMEOUT_S: '5',
  DEVICE_MESSAGES_PER_S: '0',
  DEVICE_POINTS_PER_S: '0',
  ORGANIZATION_MESSAGES_PER_S: '0',
  ADDRESS_CONNECTIONS_MAX: '0',
  ADDRESS_UNAUTHENTICATED_MAX: '0',
  ADDRESS_CONNECTS_PER_S: '0',
  DEVICE_CONNECTS_PER_MIN: '0',
  // The clock of the program is set back by an hour: what devices send is that far ahead then. A time
  // beyond this bound is replaced by the time of receipt, and a copy could no longer be told by it.
  READING_AHEAD_MAX_S: '7200',
};
const SERVER_SETTINGS = { max_connections: '30' };
const DATABASE_NAME = 'chaos';
const SPOOL_MEGABYTES = 256;

/** Builds a stage in the order of its parts; each says at once how it is stopped. */
export async function openStage(options: StageOptions, onStop: OnStop): Promise<Stage> {
  const { folder } = options;
  const clock = options.hasStepClock ? await StepClock.make(join(folder.path, 'clock')) : null;
  const spoolDisk = options.hasSpoolDisk ? await openSpoolDisk(folder, onStop) : null;
  const database = options.hasServer ? await openDatabase(folder, onStop) : null;
  const program = await Supervisor.start({
    dataDir: folder.dataDir,
    logFile: folder.logFile,
    environment: {
      ...ENVIRONMENT,
      ...(database === null ? {} : { DATABASE_URL: database.proxy.through(database.url) }),
      ...clock?.environment,
      ...options.environment,
    },
  });
  onStop(() => program.stop());
  onStop(atExit(() => program.abandon()));
  const { credentials } = await program.program;
  const mqttProxy = await TcpProxy.open(credentials.mqttUrl);
  onStop(() => mqttProxy.close());
  const mqttUrl = mqttProxy.through(credentials.mqttUrl);
  const api = new ApiClient(credentials.httpUrl, credentials.adminKey);
  const boards = await makeKeys(api, 'chaos', options.boards);
  const unrulyBoards = await makeKeys(api, 'unruly', UNRULY_DEVICES);
  const random = createRandom(options.seed);
  const unruly = new UnrulyFleet(unrulyBoards, mqttUrl, random, options.check);
  onStop(() => unruly.stop());
  const poison = database === null ? null : await openPoison(api, mqttUrl, database, onStop);
  return {
    program,
    server: database?.server ?? null,
    databaseProxy: database?.proxy ?? null,
    programDatabaseUrl: database?.url ?? '',
    ownerDatabaseUrl: database?.ownerUrl ?? (await findEmbeddedUrl(folder.dataDir)),
    mqttProxy,
    mqttUrl,
    httpUrl: credentials.httpUrl,
    clock,
    spoolDisk,
    boards,
    unruly,
    devices: [...boards, ...unrulyBoards].map(({ device }) => device),
    poison,
  };
}

async function openSpoolDisk(folder: ScratchFolder, onStop: OnStop): Promise<ScratchDisk> {
  const disk = await ScratchDisk.mount(join(folder.dataDir, 'spool'), SPOOL_MEGABYTES);
  onStop(() => disk.unmount());
  onStop(atExit(() => disk.unmount()));
  return disk;
}

interface StageDatabase {
  readonly server: DatabaseServer;
  readonly proxy: TcpProxy;
  readonly url: string;
  readonly ownerUrl: string;
}

async function openDatabase(folder: ScratchFolder, onStop: OnStop): Promise<StageDatabase> {
  const server = await DatabaseServer.make(join(folder.path, 'server'), SERVER_SETTINGS);
  onStop(() => server.remove());
  onStop(atExit(() => server.abandon()));
  const url = await server.makeDatabase(DATABASE_NAME);
  const proxy = await TcpProxy.open(url);
  onStop(() => proxy.close());
  return { server, proxy, url, ownerUrl: server.urlOf(DATABASE_NAME) };
}

/** Also when this process ends without waiting, at the second Ctrl-C. @returns what takes that back. */
function atExit(abandon: () => void): () => void {
  process.once('exit', abandon);
  return () => void process.off('exit', abandon);
}

function makeKeys(api: ApiClient, prefix: string, count: number): Promise<BoardAccess[]> {
  return provisionFleet(api, { prefix, keyName: 'chaos', tags: ['chaos'] }, count);
}

async function openPoison(
  api: ApiClient,
  mqttUrl: string,
  { ownerUrl }: StageDatabase,
  onStop: OnStop,
): Promise<PoisonDevice | null> {
  const [board] = await makeKeys(api, 'poison', 1);
  if (board === undefined) return null;
  await withDatabase(ownerUrl, refusePoison);
  const device = new PoisonDevice(board.device, board.key, mqttUrl);
  onStop(() => device.stop());
  return device;
}

import { setTimeout as delay } from 'node:timers/promises';
import { ApiClient } from '../../bench/api-client.ts';
import { startProgram, type Exit, type Program } from '../../bench/program.ts';
import { Fuzzer } from './fuzzer.ts';
import { Innocents, type InnocentReport } from './innocents.ts';

/** What a run of the fuzzer needs. */
export interface FuzzRunOptions {
  readonly seed: number;
  readonly durationMs: number;
  readonly atOnce: number;
  readonly dataDir: string;
  readonly logFile: string;
  /** Settings on top of those that a run has in any case; DATABASE_URL for one. */
  readonly environment: Readonly<Record<string, string>>;
  readonly show: (line: string) => void;
}

/** What came of a run. */
export interface FuzzResult {
  readonly seed: number;
  readonly sessions: number;
  readonly closedByBroker: number;
  readonly innocents: InnocentReport;
  /** Null while the program is up, as it must be. */
  readonly exit: Exit | null;
  /** Gauges that did not come back to zero. */
  readonly left: Readonly<Record<string, number>>;
  /** Resident memory in MB: mean of the second quarter of the run, of its last, and at the end. */
  readonly memoryMb: { readonly early: number; readonly late: number; readonly end: number };
  /** The last sessions, for whoever looks for the one that did it. */
  readonly describeLast: () => string;
}

/** Everything that must be empty once everybody has gone. */
const GAUGES = [
  'puback_broker_connections',
  'puback_broker_sessions',
  'puback_broker_unauthenticated_connections',
  'puback_broker_held_messages',
  'puback_broker_waiting_messages',
  'puback_broker_waiting_bytes',
  'puback_broker_in_flight_messages',
  'puback_broker_devices_online',
  'puback_broker_presence_queue_rows',
  'puback_ingest_queue_rows',
  'puback_ingest_queue_bytes',
  'puback_ingest_queue_messages',
  'puback_ingest_held_messages',
  'puback_ingest_held_bytes',
] as const;

const DEVICES = 4;
const EMPTY_MS_MAX = 20_000;
const SAMPLE_MS = 250;

const SETTINGS = {
  ...{ MQTT_PORT: '0', HTTP_PORT: '0', MQTTS_PORT: '0', LOG_LEVEL: 'warn' },
  ...{ ADDRESS_CONNECTIONS_MAX: '0', ADDRESS_UNAUTHENTICATED_MAX: '0' },
  ...{ ADDRESS_CONNECTS_PER_S: '0', LOGIN_FAILURES_MAX: '0', CONNECT_DEADLINE_S: '2' },
  DEVICE_CONNECTS_PER_MIN: '0',
  ...{
    ADDRESS_MESSAGES_PER_S: '0',
    ORGANIZATION_MESSAGES_PER_S: '0',
    DEVICE_MESSAGES_PER_S: '200',
  },
  ...{ SESSIONS_MAX: '200' },
};

/** Starts the program as a process of its own, fuzzes it while innocents use it, and looks at what is left. */
export async function runFuzz(options: FuzzRunOptions): Promise<FuzzResult> {
  const { dataDir, logFile, environment } = options;
  const program = await startProgram({
    dataDir,
    logFile,
    environment: { ...SETTINGS, ...environment },
    arguments: ['--new-admin-key'],
  });
  let exit: Exit | null = null;
  void program.exited.then((ended) => {
    exit = ended;
  });
  try {
    return await attack(program, options, () => exit);
  } finally {
    if (exit === null) await program.stop();
  }
}

async function attack(
  program: Program,
  options: FuzzRunOptions,
  exitOf: () => Exit | null,
): Promise<FuzzResult> {
  const { httpUrl, mqttUrl, adminKey, organization } = program.credentials;
  const api = new ApiClient(httpUrl, adminKey);
  const deviceKeys: string[] = [];
  for (let number = 1; number <= DEVICES; number += 1) {
    deviceKeys.push(await makeDevice(api, `fuzz-${number}`));
  }
  const device = 'innocent';
  const innocents = new Innocents({
    ...{ mqttUrl, organization, device },
    deviceKey: await makeDevice(api, device),
    integratorKey: await makeIntegratorKey(httpUrl, adminKey, 'innocent'),
  });
  const fuzzer = new Fuzzer(
    { mqttUrl, wsUrl: `${httpUrl.replace('http', 'ws')}/mqtt` },
    {
      organization,
      deviceKeys: deviceKeys as [string],
      integratorKeys: [
        await makeIntegratorKey(httpUrl, adminKey, 'fuzz-1'),
        await makeIntegratorKey(httpUrl, adminKey, 'fuzz-2'),
      ],
    },
    {
      seed: options.seed,
      durationMs: options.durationMs,
      atOnce: options.atOnce,
      isOver: () => exitOf() !== null,
      advance: (sessions) => options.show(`${sessions} sessions`),
    },
  );
  await innocents.start();
  const memory = sampleMemory(api);
  await fuzzer.run();
  const report = await innocents.stop();
  const left = exitOf() === null ? await gaugesLeft(api) : {};
  return {
    seed: options.seed,
    ...fuzzer.counts,
    innocents: report,
    exit: exitOf(),
    left,
    memoryMb: await memory.stop(),
    describeLast: () => fuzzer.describeLast(),
  };
}

async function makeDevice(api: ApiClient, device: string): Promise<string> {
  await api.ensureDevice(device, device, []);
  return (await api.makeKey(device, 'fuzz')).key;
}

/** A key that may read every stream of the organization. */
export async function makeIntegratorKey(
  httpUrl: string,
  adminKey: string,
  name: string,
  scopes: readonly string[] = ['data', 'status'],
): Promise<string> {
  const answer = await fetch(`${httpUrl}/api/v1/keys`, {
    method: 'POST',
    headers: { authorization: `Bearer ${adminKey}`, 'content-type': 'application/json' },
    body: JSON.stringify({ name, scopes, devices: null, expiresAt: null }),
  });
  const body = (await answer.json()) as { key?: string };
  if (body.key === undefined) throw new Error(`no integrator key: ${JSON.stringify(body)}`);
  return body.key;
}

/** Gauges that are not zero, once nothing changes them any more. */
async function gaugesLeft(api: ApiClient): Promise<Record<string, number>> {
  const end = performance.now() + EMPTY_MS_MAX;
  for (;;) {
    const metrics = await api.metrics();
    const left = GAUGES.map((name) => [name, metrics.get(name) ?? Number.NaN] as const);
    const full = left.filter(([, value]) => value !== 0);
    if (full.length === 0 || performance.now() > end) return Object.fromEntries(full);
    await delay(200);
  }
}

/** Resident memory over the time of a run. A program that is gone has none. */
function sampleMemory(api: ApiClient): { stop(): Promise<FuzzResult['memoryMb']> } {
  const samples: number[] = [];
  const sample = async (): Promise<number> => {
    const metrics = await api.metrics().catch(() => null);
    return (metrics?.get('process_resident_memory_bytes') ?? Number.NaN) / 2 ** 20;
  };
  const timer = setInterval(() => void sample().then((mb) => samples.push(mb)), SAMPLE_MS);
  return {
    async stop() {
      clearInterval(timer);
      const quarter = samples.length / 4;
      return {
        early: mean(samples.slice(quarter, 2 * quarter)),
        late: mean(samples.slice(3 * quarter)),
        end: await sample(),
      };
    },
  };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

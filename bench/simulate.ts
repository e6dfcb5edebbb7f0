import { setTimeout as delay } from 'node:timers/promises';
import { AcknowledgedLog } from './acknowledged-log.ts';
import { ApiClient } from './api-client.ts';
import {
  countOption,
  durationOption,
  EXIT_UNUSABLE,
  interruption,
  numberOption,
  runTool,
  textOption,
  type GivenOptions,
  type OptionTable,
} from './command-line.ts';
import { readCredentials } from './credentials.ts';
import { formatCount, formatMs } from './figures.ts';
import { Fleet } from './fleet.ts';
import { provisionFleet, revokeFleetKeys, type BoardAccess } from './fleet-keys.ts';
import type { BoardHabits } from './simulated-downlink.ts';
import { createProgress, type Progress } from './progress.ts';
import { verifyReadings, type Verification } from './verification.ts';

const HELP = `Simulates a fleet of ESP32 boards against a running Puback, then reads back over the API
every reading that was acknowledged. Boards greet as model sim-1, answer commands with their
arguments, report configurations, and take new keys and firmware.

  npm run simulate -- [options]

  --devices N       boards, named sim-001 and so on; missing ones are made     (10)
  --rate R          messages a second from each board                          (1)
  --duration D      60, 90s, 10m or 2h                                         (60)
  --sleep D         time between contacts; a board sends one message at each  (never sleep)
  --command-time D  how long a board works on a command                        (0)
  --fail-percent P  commands that a board cannot do                            (0)
  --send-only       boards only send: they neither greet nor listen
  --data-dir DIR    where the program wrote credentials.json                   (./data)
  --mqtt-url URL    instead of the address in credentials.json
  --http-url URL    instead of the address in credentials.json
  --admin-key KEY   instead of the key in credentials.json; or PUBACK_ADMIN_KEY
  --help

Each board gets a key named "simulator", which is revoked at the end. Ctrl-C ends the run early and
still checks. Above 20 messages/s for a board or 1000 boards, start the program with
DEVICE_MESSAGES_PER_S, DEVICE_POINTS_PER_S or ADDRESS_CONNECTIONS_MAX raised (0: no limit).

Exit status: 0 every acknowledged reading was found, 1 some are missing, 2 the run could not take place.
`;

const OPTIONS: OptionTable = {
  devices: { type: 'string' },
  rate: { type: 'string' },
  duration: { type: 'string' },
  sleep: { type: 'string' },
  'command-time': { type: 'string' },
  'fail-percent': { type: 'string' },
  'send-only': { type: 'boolean' },
  'data-dir': { type: 'string' },
  'mqtt-url': { type: 'string' },
  'http-url': { type: 'string' },
  'admin-key': { type: 'string' },
};

const FLEET_NAME = { prefix: 'sim', keyName: 'simulator', tags: ['simulated'] };
const DRAIN_MS = 30_000;
const SHOW_EVERY_MS = 500;

interface Settings {
  devices: number;
  ratePerS: number;
  durationS: number;
  habits: BoardHabits | null;
  mqttUrl: string;
  httpUrl: string;
  adminKey: string;
}

await runTool(HELP, OPTIONS, async (options) => {
  const settings = await readSettings(options);
  const api = new ApiClient(settings.httpUrl, settings.adminKey);
  await api.assertReady();
  const progress = createProgress(process.stderr);
  const interrupted = interruption();
  const boards = await provisionFleet(api, FLEET_NAME, settings.devices, (ready) => {
    progress.show(`${ready} of ${settings.devices} boards have a key`);
    return !interrupted.aborted;
  });
  progress.end();
  try {
    return await simulate(settings, api, boards, progress, interrupted);
  } finally {
    await revokeFleetKeys(api, boards);
  }
});

async function readSettings(options: GivenOptions): Promise<Settings> {
  const devices = countOption(options, 'devices', 10, [1, 100_000]);
  const ratePerS = numberOption(options, 'rate', 1, [0.001, 1000]);
  const durationS = durationOption(options, 'duration', 60);
  const given = {
    mqttUrl: textOption(options, 'mqtt-url', ''),
    httpUrl: textOption(options, 'http-url', ''),
    adminKey: textOption(options, 'admin-key', process.env['PUBACK_ADMIN_KEY'] ?? ''),
  };
  const isComplete = Object.values(given).every((text) => text !== '');
  const file = isComplete
    ? given
    : await readCredentials(textOption(options, 'data-dir', './data'));
  return {
    devices,
    ratePerS,
    durationS,
    habits: readHabits(options),
    mqttUrl: given.mqttUrl || file.mqttUrl,
    httpUrl: given.httpUrl || file.httpUrl,
    adminKey: given.adminKey || file.adminKey,
  };
}

/** Null: boards only send. */
function readHabits(options: GivenOptions): BoardHabits | null {
  const habits = {
    commandMs: durationOption(options, 'command-time', 0) * 1000,
    failPercent: numberOption(options, 'fail-percent', 0, [0, 100]),
    sleepS: Math.ceil(durationOption(options, 'sleep', 0)),
  };
  return options['send-only'] === true ? null : habits;
}

async function simulate(
  settings: Settings,
  api: ApiClient,
  boards: readonly BoardAccess[],
  progress: Progress,
  interrupted: AbortSignal,
): Promise<number> {
  if (interrupted.aborted) {
    process.stdout.write('Interrupted before anything was sent.\n');
    return EXIT_UNUSABLE;
  }
  const startMs = Date.now();
  const log = new AcknowledgedLog(startMs);
  const fleet = new Fleet({
    mqttUrl: settings.mqttUrl,
    boards,
    ratePerS: settings.ratePerS,
    log,
    ...(settings.habits === null ? {} : { habitsOf: habitsOf(settings.habits) }),
  });
  fleet.start();
  const endMs = performance.now() + settings.durationS * 1000;
  while (performance.now() < endMs && !interrupted.aborted) {
    progress.show(runLine(fleet, boards.length, endMs - performance.now()));
    const pauseMs = Math.min(SHOW_EVERY_MS, endMs - performance.now());
    await delay(Math.max(0, pauseMs), undefined, { signal: interrupted }).catch(ignoreAbort);
  }
  progress.step('waiting for the last acknowledgements');
  const unacknowledged = await fleet.drain(DRAIN_MS);
  await fleet.close();
  progress.end();
  await api.assertReady();
  const verification = await verifyReadings(boards, log, api.history.bind(api), (done) => {
    progress.show(`reading back: ${done} of ${boards.length} boards`);
  });
  progress.end();
  process.stdout.write(report(fleet, unacknowledged, verification));
  if (fleet.counts.acknowledged === 0) return EXIT_UNUSABLE;
  return isFaultless(verification) ? 0 : 1;
}

function habitsOf(habits: BoardHabits): () => BoardHabits {
  return () => habits;
}

function ignoreAbort(error: unknown): void {
  if (!(error instanceof Error && error.name === 'AbortError')) throw error;
}

function runLine(fleet: Fleet, boards: number, leftMs: number): string {
  const { sent, acknowledged, connected, resent, lastFault } = fleet.counts;
  const { p50, p99 } = fleet.latency;
  const fault = connected < boards && lastFault !== null ? `, last fault: ${lastFault}` : '';
  return (
    `${Math.ceil(leftMs / 1000)} s left, ${connected} of ${boards} connected, ` +
    `${formatCount(acknowledged)} of ${formatCount(sent)} acknowledged, ${resent} resent, ` +
    `PUBACK p50 ${formatMs(p50)} p99 ${formatMs(p99)}${fault}`
  );
}

function report(fleet: Fleet, unacknowledged: number, verification: Verification): string {
  const { counts, latency } = fleet;
  const lines: (readonly [string, string])[] = [
    ['messages sent', formatCount(counts.sent)],
    ['  acknowledged', formatCount(counts.acknowledged)],
    ['  still unacknowledged', formatCount(unacknowledged)],
    ['  sent again after a lost connection', formatCount(counts.resent)],
    ['  not made, 1000 were waiting', formatCount(counts.skipped)],
    ['connections lost', formatCount(counts.connectionsLost)],
    ['readings acknowledged', formatCount(verification.acknowledged)],
    ['  found through the API', formatCount(verification.found)],
    ['  missing', formatCount(verification.missing)],
    ['  found with another value', formatCount(verification.different)],
    ['  found more than once', formatCount(verification.twice)],
    ['PUBACK p50', formatMs(latency.p50)],
    ['PUBACK p99', formatMs(latency.p99)],
    ['PUBACK max', formatMs(latency.max)],
  ];
  const table = lines.map(([name, figure]) => `${name.padEnd(36)}${figure.padStart(12)}`);
  const fault =
    counts.lastFault === null ? [] : [`last fault of a connection: ${counts.lastFault}`];
  const examples = verification.examples.map((example) => `missing: ${example}`);
  return `${[...table, ...fault, ...examples].join('\n')}\n${conclusion(fleet, verification)}\n`;
}

function conclusion(fleet: Fleet, verification: Verification): string {
  if (fleet.counts.acknowledged === 0) return 'Nothing was acknowledged.';
  if (isFaultless(verification)) return 'Every acknowledged reading was found, once.';
  return 'NOT every acknowledged reading was found as it was sent, once.';
}

function isFaultless(verification: Verification): boolean {
  return verification.missing + verification.different + verification.twice === 0;
}

import { setTimeout as delay } from 'node:timers/promises';
import { createApp, type App } from '../app.ts';
import { credentialText, printWelcome } from '../banner.ts';
import { loadConfig, type Config } from '../config.ts';
import { ToolFailedError } from '../errors.ts';
import { ApiClient } from './api-client.ts';
import {
  countOption,
  interruption,
  numberOption,
  runTool,
  type OptionTable,
} from './command-line.ts';
import { AlertTeller, DEMO_RULE, demoReadings, HEAT_AFTER_MS, HEATED_BOARD } from './demo-alert.ts';
import { CommandTeller, DEMO_SLEEP_S, demoHabits, isSleeper } from './demo-command.ts';
import { readCredentials } from './credentials.ts';
import { formatCount, formatMs } from './figures.ts';
import { Fleet } from './fleet.ts';
import { provisionFleet, revokeFleetKeys } from './fleet-keys.ts';

const HELP = `Puback with a small simulated fleet, in one process: see it work, then send something yourself.
One board is sent a command and answers; another one sleeps, and finds its command when it wakes. Then
a board gets too hot: an alert fires, switches its fan on, is explained, and is resolved.

  npm run demo -- [options]

  --devices N       simulated boards, demo-001 and so on                       (8)
  --rate R          messages a second from each board                          (1)
  --help

All settings of the program apply (README, "Configuration"); LOG_LEVEL is warn here. Ctrl-C stops
everything cleanly, a second one at once. The next start finds its data again.
`;

const OPTIONS: OptionTable = { devices: { type: 'string' }, rate: { type: 'string' } };

const FLEET_NAME = { prefix: 'demo', keyName: 'demo fleet', tags: ['demo', 'simulated'] };
const LINE_EVERY_MS = 5000;
const DRAIN_MS = 5000;
const ROWS_STORED = 'puback_ingest_stored_rows_total';

await runTool(HELP, OPTIONS, async (options) => {
  const devices = countOption(options, 'devices', 8, [1, 1000]);
  const ratePerS = numberOption(options, 'rate', 1, [0.01, 20]);
  const interrupted = interruption();
  const config = loadConfig({ ...process.env, LOG_LEVEL: process.env['LOG_LEVEL'] ?? 'warn' });
  const app = createApp(config);
  try {
    process.stdout.write('Starting. The first start takes a few seconds: it sets up a database.\n');
    await app.start();
    if (!interrupted.aborted) await runFleet(app, config, { devices, ratePerS, interrupted });
  } finally {
    await app.stop();
  }
  process.stdout.write('Stopped. Everything acknowledged is stored; the next start finds it.\n');
  return 0;
});

async function runFleet(
  app: App,
  config: Config,
  load: { devices: number; ratePerS: number; interrupted: AbortSignal },
): Promise<void> {
  const { mqttUrl, httpUrl } = app.started.addresses;
  const { adminKey } = app.started.credentials ?? (await readCredentials(config.DATA_DIR));
  const api = new ApiClient(httpUrl, adminKey);
  const boards = await provisionFleet(
    api,
    FLEET_NAME,
    load.devices,
    () => !load.interrupted.aborted,
  );
  await api.ensureRule(DEMO_RULE);
  const startMs = Date.now();
  const readingOf = demoReadings(startMs);
  const habitsOf = demoHabits(boards.length);
  const fleet = new Fleet({ mqttUrl, boards, ratePerS: load.ratePerS, readingOf, habitsOf });
  try {
    if (load.interrupted.aborted) return;
    printWelcome(app.started, config);
    process.stdout.write(`${fleetText(httpUrl, boards.length)}\n`);
    fleet.start();
    const curl = curlText(httpUrl, config);
    const devices = boards.map(({ device }) => device);
    await Promise.all([
      printLines(fleet, api, load.interrupted),
      new AlertTeller(api, curl, startMs).run(load.interrupted),
      new CommandTeller({ api, curl, devices, startMs }).run(load.interrupted),
    ]);
    process.stdout.write('\nStopping.\n');
    await fleet.drain(DRAIN_MS);
  } finally {
    await fleet.close();
    await revokeFleetKeys(api, boards);
  }
}

function fleetText(httpUrl: string, boards: number): string {
  return [
    '',
    `  ${boards} simulated boards publish now. In a browser: ${httpUrl}/docs`,
    '  In a moment one of them is sent a command.',
    ...(isSleeper(boards, boards)
      ? [`  Board ${boards} sleeps ${DEMO_SLEEP_S} seconds at a time: its commands wait for it.`]
      : []),
    `  In ${HEAT_AFTER_MS / 1000} seconds board ${HEATED_BOARD} gets too hot: its alert is told of here.`,
    '  Ctrl-C stops everything.',
    '',
  ].join('\n');
}

/** The beginning of a command that reads what the demo shows, up to the path. */
function curlText(httpUrl: string, { DATA_DIR }: Config): string {
  return `curl -s -H "Authorization: Bearer ${credentialText(DATA_DIR, 'adminKey')}" ${httpUrl}/api/v1`;
}

/** One line every few seconds until the signal aborts. */
async function printLines(fleet: Fleet, api: ApiClient, interrupted: AbortSignal): Promise<void> {
  let acknowledgedBefore = 0;
  let lineMs = performance.now();
  while (!interrupted.aborted) {
    await pause(LINE_EVERY_MS, interrupted);
    if (interrupted.aborted) return;
    const rows = await storedRows(api);
    const { acknowledged } = fleet.counts;
    const nowMs = performance.now();
    const messagesPerS = ((acknowledged - acknowledgedBefore) * 1000) / (nowMs - lineMs);
    const { p50, p99 } = fleet.takeIntervalLatency();
    process.stdout.write(
      `${new Date().toISOString().slice(11, 19)}  ${messagesPerS.toFixed(1).padStart(7)} messages/s  ` +
        `${rows.padStart(9)} rows stored  PUBACK p50 ${formatMs(p50)}, p99 ${formatMs(p99)}\n`,
    );
    acknowledgedBefore = acknowledged;
    lineMs = nowMs;
  }
}

/** As the program itself counts them, the readings of other clients too. */
async function storedRows(api: ApiClient): Promise<string> {
  try {
    return formatCount((await api.metrics()).get(ROWS_STORED) ?? Number.NaN);
  } catch (error) {
    // The lines go on while the database is away: that is when a person looks at them.
    if (error instanceof ToolFailedError) return 'no answer:';
    throw error;
  }
}

/** Waits, and returns early when the signal aborts. */
async function pause(ms: number, interrupted: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal: interrupted }).catch((error: unknown) => {
    if (!interrupted.aborted) throw error;
  });
}

import { setTimeout as delay } from 'node:timers/promises';
import { ToolFailedError } from '../errors.ts';
import { ApiClient } from './api-client.ts';
import { CalmFleet } from './calm-fleet.ts';
import { countOption, durationOption, runTool, type OptionTable } from './command-line.ts';
import { provisionFleet, type BoardAccess } from './fleet-keys.ts';
import { formatMs } from './figures.ts';
import { Flood } from './flood.ts';
import type { Target } from './generator-connection.ts';
import { startProgram, stopLeftDatabase } from './program.ts';
import { createProgress, type Progress } from './progress.ts';
import { connectPacket } from './publish-ring.ts';
import { makeScratchFolder, type ScratchFolder } from './scratch-folder.ts';

const HELP = `Measures what a device that floods does to the others: the time to PUBACK of 100 devices that
send one message a second each, without and with one more device that sends 2 000 a second, in turns
and in one run. Once with the default limits and once without a limit for the device.

  npm run bench:fairness -- [options]

  --rounds N       turns without and with the flood, of each kind             (12)
  --seconds D      length of a turn                                            (3)
  --flood N        messages a second of the device that floods                 (2000)
  --help

Exit status: 0 the median p99 moved by at most 30 %, 1 by more, 2 the run could not take place.
`;

const OPTIONS: OptionTable = {
  rounds: { type: 'string' },
  seconds: { type: 'string' },
  flood: { type: 'string' },
};

const CALM_DEVICES = 100;
const WARMUP_S = 3;
const RATIO_MAX = 1.3;
/** Between the end of a flood and the next turn: what is left of it is stored meanwhile. */
const SETTLE_MS = 500;

const ALONE = { MQTT_PORT: '0', HTTP_PORT: '0', LOG_LEVEL: 'warn', DATABASE_URL: '' };
const KINDS = [
  { title: 'limits as they are by default', environment: {} },
  {
    title: 'no limit for the device',
    environment: { DEVICE_MESSAGES_PER_S: '0', DEVICE_POINTS_PER_S: '0' },
  },
] as const;

/** What was asked for. */
interface Plan {
  readonly rounds: number;
  readonly seconds: number;
  readonly floodPerS: number;
}

await runTool(HELP, OPTIONS, async (options) => {
  const plan: Plan = {
    rounds: countOption(options, 'rounds', 12, [1, 100]),
    seconds: durationOption(options, 'seconds', 3),
    floodPerS: countOption(options, 'flood', 2000, [1, 100_000]),
  };
  const progress = createProgress(process.stderr);
  let isMet = true;
  for (const { title, environment } of KINDS) {
    const scratch = await makeScratchFolder('fairness');
    try {
      isMet = (await measureKind(title, environment, plan, scratch, progress)) && isMet;
    } finally {
      progress.end();
      await stopLeftDatabase(scratch.dataDir);
      await scratch.remove();
    }
  }
  return isMet ? 0 : 1;
});

/** @returns whether the target is met. */
async function measureKind(
  title: string,
  environment: Readonly<Record<string, string>>,
  plan: Plan,
  { dataDir, logFile }: ScratchFolder,
  progress: Progress,
): Promise<boolean> {
  progress.step(`${title}: starting the program`);
  const program = await startProgram({
    dataDir,
    logFile,
    environment: { ...ALONE, ...environment },
  });
  try {
    const { httpUrl, mqttUrl, adminKey } = program.credentials;
    const name = { prefix: 'fair', keyName: 'bench', tags: ['bench'] };
    const boards = await provisionFleet(new ApiClient(httpUrl, adminKey), name, CALM_DEVICES + 1);
    const [flooder, ...calm] = boards.map((board) => targetOf(mqttUrl, board));
    if (flooder === undefined) throw new ToolFailedError('no devices');
    const others = new CalmFleet(calm);
    const flood = new Flood(flooder, plan.floodPerS);
    others.start();
    await delay(WARMUP_S * 1000);
    const turns = await alternate(plan, others, flood, (round) =>
      progress.step(`${title}: round ${round} of ${plan.rounds}`),
    );
    others.stop();
    progress.end();
    return report(title, turns);
  } finally {
    await program.stop();
  }
}

function targetOf(mqttUrl: string, { device, key }: BoardAccess): Target {
  const { hostname, port } = new URL(mqttUrl);
  const packet = connectPacket(device, 'device', key);
  return { host: hostname, port: Number(port), connectPacket: packet };
}

/** Times to PUBACK of one turn, in ms, and what the flood achieved in it. */
interface Turn {
  readonly isFlooded: boolean;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly floodedPerS: number;
  readonly floodConnections: number;
}

/** Turns without and with the flood; the one that comes first changes from round to round. */
async function alternate(
  plan: Plan,
  others: CalmFleet,
  flood: Flood,
  tell: (round: number) => void,
): Promise<Turn[]> {
  const turns: Turn[] = [];
  for (let round = 1; round <= plan.rounds; round += 1) {
    tell(round);
    for (const isFlooded of round % 2 === 1 ? [false, true] : [true, false]) {
      const before = flood.counts();
      if (isFlooded) flood.start();
      others.takeTimes();
      await delay(plan.seconds * 1000);
      const times = others.takeTimes();
      const after = flood.counts();
      if (isFlooded) flood.stop();
      turns.push({
        isFlooded,
        p50Ms: percentile(times, 0.5),
        p99Ms: percentile(times, 0.99),
        floodedPerS: (after.acknowledged - before.acknowledged) / plan.seconds,
        floodConnections: after.connections - before.connections,
      });
      await delay(SETTLE_MS);
    }
  }
  return turns;
}

function report(title: string, turns: readonly Turn[]): boolean {
  const kinds = [false, true].map((isFlooded) =>
    turns.filter((turn) => turn.isFlooded === isFlooded),
  );
  const [calm = [], flooded = []] = kinds;
  const [before, during] = [medianOf(calm), medianOf(flooded)];
  const ratio = during.p99Ms / before.p99Ms;
  const lines = [
    `${title}:`,
    `  without the flood  PUBACK p50 ${formatMs(before.p50Ms)}, p99 ${formatMs(before.p99Ms)}`,
    `  with it            PUBACK p50 ${formatMs(during.p50Ms)}, p99 ${formatMs(during.p99Ms)}`,
    `  of the flood ${Math.round(during.floodedPerS)} messages/s were acknowledged, over ` +
      `${during.floodConnections} connections a turn`,
    `  p99 by round ${calm.map(({ p99Ms }) => p99Ms.toFixed(2)).join(' ')} without, ` +
      `${flooded.map(({ p99Ms }) => p99Ms.toFixed(2)).join(' ')} with`,
    `  p99 × ${ratio.toFixed(2)}, at most ${RATIO_MAX} wanted: ${ratio <= RATIO_MAX ? 'met' : 'MISSED'}`,
  ];
  process.stdout.write(`${lines.join('\n')}\n\n`);
  return ratio <= RATIO_MAX;
}

function medianOf(turns: readonly Turn[]) {
  const median = (read: (turn: Turn) => number) => percentile(turns.map(read), 0.5);
  return {
    p50Ms: median((turn) => turn.p50Ms),
    p99Ms: median((turn) => turn.p99Ms),
    floodedPerS: median((turn) => turn.floodedPerS),
    floodConnections: median((turn) => turn.floodConnections),
  };
}

function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const value = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  if (value === undefined) throw new ToolFailedError('nothing was acknowledged in a turn');
  return value;
}

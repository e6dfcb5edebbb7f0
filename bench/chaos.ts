import {
  countOption,
  durationOption,
  interruption,
  runTool,
  textOption,
  type OptionTable,
} from './command-line.ts';
import { runCrashRounds, type CrashReport } from './crash-rounds.ts';
import { ToolFailedError } from '../errors.ts';
import { formatCount, formatMs, formatTable } from './figures.ts';
import { logTail, stopLeftDatabase } from './program.ts';
import { makeScratchFolder } from './scratch-folder.ts';
import type { Fault, FaultRecord } from './silence-finder.ts';

const HELP = `Strikes Puback under load at random moments: SIGKILL for the program, for its database, for both, or
SIGTERM, and starts it again. At the end every acknowledged message must be stored, and none twice.

  npm run chaos -- [options]

  --duration D      60, 90s, 10m or 2h                                          (5m)
  --seed N          the same faults at the same distances                       (random)
  --faults LIST     kill-program,kill-database,kill-both,restart-program        (all)
  --connections N   devices under load                                          (20)
  --window N        messages in flight of each                                  (20)
  --rate N          messages/s in all                                           (3000)
  --pause D         longest time from one recovery to the next fault            (5)
  --help

It works on a temporary folder with the embedded database, which is removed at the end unless something
is wrong. Ctrl-C ends the run early and still compares.

Exit status: 0 nothing lost and nothing twice, 1 otherwise, 2 the run could not take place.
`;

const OPTIONS: OptionTable = {
  duration: { type: 'string' },
  seed: { type: 'string' },
  faults: { type: 'string' },
  connections: { type: 'string' },
  window: { type: 'string' },
  rate: { type: 'string' },
  pause: { type: 'string' },
};

const ALL_FAULTS: readonly Fault[] = [
  'kill-program',
  'kill-database',
  'kill-both',
  'restart-program',
];

await runTool(HELP, OPTIONS, async (options) => {
  const seed = countOption(options, 'seed', Date.now() % 1_000_000, [0, 2 ** 32 - 1]);
  const faults = chooseFaults(textOption(options, 'faults', ALL_FAULTS.join(',')));
  const durationS = durationOption(options, 'duration', 300);
  const pauseMsMax = durationOption(options, 'pause', 5) * 1000;
  const connections = countOption(options, 'connections', 20, [1, 10_000]);
  const ratePerS = countOption(options, 'rate', 3000, [1, 1_000_000]);
  // Times are unique by the millisecond: a device that sends more would run ahead of the clock.
  if (ratePerS > 1000 * connections) {
    throw new ToolFailedError('--rate must be at most 1000 for each connection');
  }
  const startMs = performance.now();
  const folder = await makeScratchFolder('chaos');
  process.stdout.write(`seed ${seed}, ${folder.path}\n`);
  let isFaultless = false;
  try {
    const report = await runCrashRounds({
      folder,
      faults,
      faultsMax: Number.POSITIVE_INFINITY,
      durationS,
      interrupted: interruption(),
      seed,
      connections,
      window: countOption(options, 'window', 20, [1, 1000]),
      ratePerS,
      pauseMsMax,
      onFault: (fault, acknowledged) => {
        const seconds = ((performance.now() - startMs) / 1000).toFixed(0).padStart(5);
        process.stdout.write(`${seconds} s  ${fault}, ${formatCount(acknowledged)} acknowledged\n`);
      },
    });
    process.stdout.write(reportText(report));
    const { lost, twice, altered } = report.check;
    isFaultless = lost + twice + altered === 0;
    return isFaultless ? 0 : 1;
  } finally {
    await stopLeftDatabase(folder.dataDir);
    if (isFaultless) await folder.remove();
    else process.stderr.write(`${await logTail(folder.logFile)}\nkept: ${folder.path}\n`);
  }
});

function chooseFaults(list: string): [Fault, ...Fault[]] {
  const [first, ...rest] = list.split(',').map((name) => {
    const fault = ALL_FAULTS.find((known) => known === name);
    if (fault !== undefined) return fault;
    throw new ToolFailedError(`--faults knows ${ALL_FAULTS.join(', ')}, not ${name}`);
  });
  if (first === undefined) throw new ToolFailedError('--faults is empty');
  return [first, ...rest];
}

function reportText({ faults, check, generator, ownExits }: CrashReport): string {
  const rows = ALL_FAULTS.map((fault) => faults.filter((record) => record.fault === fault))
    .filter((records) => records.length > 0)
    .map(faultRow);
  const header = [
    'fault',
    'times',
    'PUBACKs in the second before',
    'under way',
    'first PUBACK after: median',
    'longest',
  ];
  const figures: (readonly [string, number])[] = [
    ['messages acknowledged', check.acknowledged],
    ['rows stored', check.stored],
    ['acknowledged and LOST', check.lost],
    ['stored TWICE', check.twice],
    ['stored at another time', check.altered],
    ['stored, PUBACK never arrived', check.unacknowledged],
    ['unacknowledged at the end', generator.unacknowledged],
    ['connections lost', generator.connectionsLost],
    ['program ended by itself', ownExits],
  ];
  const lines = figures.map(([name, count]) => name.padEnd(32) + formatCount(count).padStart(12));
  return `\n${formatTable(header, rows)}\n\n${[...lines, ...check.examples].join('\n')}\n`;
}

function faultRow(records: readonly FaultRecord[]): string[] {
  const recovered = records.flatMap(({ recoveredMs }) => recoveredMs ?? []).sort((a, b) => a - b);
  const sum = (pick: (record: FaultRecord) => number): string =>
    formatCount(records.reduce((total, record) => total + pick(record), 0) / records.length);
  return [
    records[0]?.fault ?? '',
    String(records.length),
    sum((record) => record.acknowledgedBefore),
    sum((record) => record.acknowledgedUnderWay),
    formatMs(recovered[Math.floor(recovered.length / 2)] ?? 0),
    formatMs(recovered.at(-1) ?? 0),
  ];
}

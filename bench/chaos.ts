import { chaosText, isFaultless } from './chaos-report.ts';
import { runChaos } from './chaos-run.ts';
import {
  countOption,
  durationOption,
  interruption,
  runTool,
  textOption,
  type OptionTable,
} from './command-line.ts';
import { ToolFailedError } from '../errors.ts';
import { makeFaults } from './faults/catalogue.ts';
import type { Fault } from './faults/fault.ts';
import { formatCount } from './figures.ts';
import { logTail, stopLeftDatabase } from './program.ts';
import { makeScratchFolder } from './scratch-folder.ts';

const NAMES = [...makeFaults({ outageMs: 0, spellMs: 0 }).keys()];

const HELP = `Strikes Puback, its database and its devices under load at random moments, one fault after the other
and sometimes one within another, and lets it recover by itself. At the end every acknowledged message
must be stored exactly once, every scrape of the ledger must add up, and aggregates must equal the
readings they are made of.

  npm run chaos -- [options]

  --duration D      60, 90s, 10m or 2h                                          (20m)
  --seed N          the same faults at the same distances                       (random)
  --faults LIST     of the faults below, with commas between                    (all)
  --database WHICH  server: a PostgreSQL of its own behind a proxy;
                    embedded: the program's, for the faults that do without     (server)
  --outage D        how long stop-database lasts                                (60)
  --spell D         how long every other fault lasts that is not over at once   (5)
  --connections N   devices under load                                          (20)
  --window N        messages in flight of each                                  (20)
  --rate N          messages/s in all                                           (3000)
  --pause D         longest time from one recovery to the next fault            (5)
  --help

Faults: ${NAMES.slice(0, 6).join(', ')},
${NAMES.slice(6, 12).join(', ')},
${NAMES.slice(12).join(', ')}.

It works on a temporary folder, which is removed at the end unless something is wrong. What cannot
strike on this machine is named in the report: fill-spool-disk needs root, clock-… needs libfaketime.
Ctrl-C ends the run early, heals what is on and still compares.

Exit status: 0 nothing lost, nothing twice and all adds up, 1 otherwise, 2 the run could not take place.
`;

const OPTIONS: OptionTable = {
  duration: { type: 'string' },
  seed: { type: 'string' },
  faults: { type: 'string' },
  database: { type: 'string' },
  outage: { type: 'string' },
  spell: { type: 'string' },
  connections: { type: 'string' },
  window: { type: 'string' },
  rate: { type: 'string' },
  pause: { type: 'string' },
};

await runTool(HELP, OPTIONS, async (options) => {
  const seed = countOption(options, 'seed', Date.now() % 1_000_000, [0, 2 ** 32 - 1]);
  const known = makeFaults({
    outageMs: durationOption(options, 'outage', 60) * 1000,
    spellMs: durationOption(options, 'spell', 5) * 1000,
  });
  const database = textOption(options, 'database', 'server');
  if (database !== 'server' && database !== 'embedded') {
    throw new ToolFailedError('--database is server or embedded');
  }
  const faults = chooseFaults(known, textOption(options, 'faults', NAMES.join(',')));
  const durationS = durationOption(options, 'duration', 1200);
  const pauseMsMax = durationOption(options, 'pause', 5) * 1000;
  const connections = countOption(options, 'connections', 20, [1, 10_000]);
  const window = countOption(options, 'window', 20, [1, 1000]);
  const ratePerS = countOption(options, 'rate', 3000, [1, 1_000_000]);
  // Times are unique by the millisecond: a device that sends more would run ahead of the clock.
  if (ratePerS > 1000 * connections) {
    throw new ToolFailedError('--rate must be at most 1000 for each connection');
  }
  const startMs = performance.now();
  const folder = await makeScratchFolder('chaos');
  process.stdout.write(`seed ${seed}, ${folder.path}\n`);
  let isClean = false;
  try {
    const report = await runChaos({
      folder,
      database,
      faults,
      faultsMax: Number.POSITIVE_INFINITY,
      durationS,
      interrupted: interruption(),
      seed,
      connections,
      window,
      ratePerS,
      pauseMsMax,
      onFault: (fault, acknowledged) => {
        const seconds = ((performance.now() - startMs) / 1000).toFixed(0).padStart(5);
        process.stdout.write(`${seconds} s  ${fault}, ${formatCount(acknowledged)} acknowledged\n`);
      },
    });
    process.stdout.write(chaosText(report));
    isClean = isFaultless(report);
    return isClean ? 0 : 1;
  } finally {
    await stopLeftDatabase(folder.dataDir);
    if (isClean) await folder.remove();
    else process.stderr.write(`${await logTail(folder.logFile)}\nkept: ${folder.path}\n`);
  }
});

function chooseFaults(known: ReadonlyMap<string, Fault>, list: string): [Fault, ...Fault[]] {
  const [first, ...rest] = list.split(',').map((name) => {
    const fault = known.get(name);
    if (fault !== undefined) return fault;
    throw new ToolFailedError(`--faults knows ${NAMES.join(', ')}, not ${name}`);
  });
  if (first === undefined) throw new ToolFailedError('--faults is empty');
  return [first, ...rest];
}

import { resolve } from 'node:path';
import { loadEnvFile } from '../config.ts';
import type { ReadOptions } from '../drizzle/backup/read-backup.ts';
import { checkBackup, restoreBackup, type RestoreReport } from '../drizzle/backup/restore.ts';
import { restoreEmbedded } from '../drizzle/backup/restore-embedded.ts';
import { ToolFailedError } from '../errors.ts';
import { createLog } from '../log.ts';
import { backupLine, backupTable, explainFaults, progressTeller } from './backup-lines.ts';
import {
  interruption,
  runTool,
  textOption,
  type GivenOptions,
  type OptionTable,
} from './command-line.ts';
import { givenDatabaseUrl } from './database-client.ts';
import { LeftSpool } from './left-spool.ts';

const HELP = `Restores a backup into a new embedded database. Puback must not run on the data folder.

  npm run restore -- --from FILE [options]

  --from FILE           what npm run backup wrote
  --data-dir DIR        data folder of Puback                                   (DATA_DIR, or ./data)
  --replace-database    a database that is there is moved aside, to DATA_DIR/postgres.replaced-…
  --set-spool-aside     messages that wait in DATA_DIR/spool for the database that was there are moved
                        aside, to DATA_DIR/spool.replaced-…; without it the restore is refused
  --check               only reads the whole file and compares checksum and counts
  --help

With DATABASE_URL set, the backup goes into that database, which must be empty.
Keys of devices, integrators and people work as before. credentials.json is not in a backup: keys cannot
be read back from it. The next start writes a new one where it is missing.

Exit status: 0 all rows are there, 2 nothing was restored, and what was there is as it was.
`;

const OPTIONS: OptionTable = {
  from: { type: 'string' },
  'data-dir': { type: 'string' },
  'replace-database': { type: 'boolean' },
  'set-spool-aside': { type: 'boolean' },
  check: { type: 'boolean' },
};

await runTool(HELP, OPTIONS, async (options) => {
  loadEnvFile();
  const from = textOption(options, 'from', '');
  if (from === '') throw new ToolFailedError('--from FILE is missing');
  const startMs = performance.now();
  const teller = progressTeller();
  const work = restore(options, {
    file: resolve(from),
    signal: interruption(),
    onProgress: teller.tell,
  });
  const { report, ending } = await explainFaults(work).finally(() => teller.end());
  process.stdout.write(reportText(report, performance.now() - startMs, ending));
  return 0;
});

/** @returns with the last lines for a person. */
async function restore(
  options: GivenOptions,
  reading: ReadOptions,
): Promise<{ report: RestoreReport; ending: string }> {
  if (options['check'] === true) {
    return { report: await checkBackup(reading), ending: 'the backup is whole' };
  }
  const url = givenDatabaseUrl();
  const dataDir = textOption(options, 'data-dir', process.env['DATA_DIR'] ?? './data');
  const left = new LeftSpool(dataDir, options['set-spool-aside'] === true);
  if (url !== '') {
    await left.check();
    const report = await restoreBackup(url, reading);
    await left.setAside();
    return { report, ending: `restored into the database of DATABASE_URL${spoolLine(left)}` };
  }
  const report = await restoreEmbedded({
    ...reading,
    dataDir,
    replace: options['replace-database'] === true,
    log: createLog('error'),
    onLocked: () => left.check(),
    onRestored: () => left.setAside(),
  });
  const aside =
    report.replacedFolder === null
      ? ''
      : `\nthe database that was there is in ${report.replacedFolder}; delete it when you do not need it any more`;
  return { report, ending: `restored into ${resolve(dataDir)}${aside}${spoolLine(left)}` };
}

function spoolLine({ asideFolder }: LeftSpool): string {
  return asideFolder === null
    ? ''
    : `\nmessages that waited for it are in ${asideFolder}, and nothing stores them by itself any more`;
}

function reportText(report: RestoreReport, tookMs: number, ending: string): string {
  const { createdAt, serverVersion, migrations } = report.header;
  const skipped = report.skipped.map((table) => `not restored, not of this schema: ${table}`);
  const lines = [
    backupTable(report),
    backupLine(report, tookMs),
    `made at ${createdAt}, PostgreSQL ${serverVersion}, schema ${migrations.length}`,
    ...skipped,
    ending,
  ];
  return `${lines.join('\n')}\n`;
}

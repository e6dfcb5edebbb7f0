import { resolve } from 'node:path';
import { loadEnvFile } from '../config.ts';
import { checkBackup, restoreBackup, type RestoreReport } from '../drizzle/backup/restore.ts';
import { restoreEmbedded } from '../drizzle/backup/restore-embedded.ts';
import { ToolFailedError } from '../errors.ts';
import { createLog } from '../log.ts';
import { backupLine, backupTable, progressTeller } from './backup-lines.ts';
import { interruption, runTool, textOption, type OptionTable } from './command-line.ts';

const HELP = `Restores a backup into a new embedded database. Puback must not run on the data folder.

  npm run restore -- --from FILE [options]

  --from FILE           what npm run backup wrote
  --data-dir DIR        data folder of Puback                                   (DATA_DIR, or ./data)
  --replace-database    a database that is there is moved aside, to DATA_DIR/postgres.replaced-…
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
  check: { type: 'boolean' },
};

await runTool(HELP, OPTIONS, async (options) => {
  loadEnvFile();
  const from = textOption(options, 'from', '');
  if (from === '') throw new ToolFailedError('--from FILE is missing');
  const dataDir = textOption(options, 'data-dir', process.env['DATA_DIR'] ?? './data');
  const url = process.env['DATABASE_URL']?.trim() ?? '';
  const replace = options['replace-database'] === true;
  const startMs = performance.now();
  const teller = progressTeller();
  const common = { file: resolve(from), signal: interruption(), onProgress: teller.tell };
  const tell = (report: RestoreReport, place: string): void => {
    teller.end();
    process.stdout.write(reportText(report, performance.now() - startMs, place));
  };
  if (options['check'] === true) {
    tell(await checkBackup(common), 'the backup is whole');
  } else if (url !== '') {
    tell(await restoreBackup(url, common), 'restored into the database of DATABASE_URL');
  } else {
    const log = createLog('error');
    const report = await restoreEmbedded({ ...common, dataDir, replace, log });
    const { replacedFolder } = report;
    const aside =
      replacedFolder === null
        ? ''
        : `\nthe database that was there is in ${replacedFolder}; delete it when you do not need it any more`;
    tell(report, `restored into ${resolve(dataDir)}${aside}`);
  }
  return 0;
});

function reportText(report: RestoreReport, tookMs: number, place: string): string {
  const { createdAt, serverVersion, migrations } = report.header;
  const skipped = report.skipped.map(
    (table) => `not restored, made anew by the database: ${table}`,
  );
  const lines = [
    backupTable(report),
    backupLine(report, tookMs),
    `made at ${createdAt}, PostgreSQL ${serverVersion}, schema ${migrations.length}`,
    ...skipped,
    place,
  ];
  return `${lines.join('\n')}\n`;
}

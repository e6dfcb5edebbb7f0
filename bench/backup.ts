import { resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { loadEnvFile } from '../config.ts';
import { writeBackup, type BackupReport } from '../drizzle/backup/backup.ts';
import { lockDataFolder } from '../drizzle/data-folder-lock.ts';
import { startEmbedded } from '../drizzle/embedded.ts';
import { waitingBytes } from '../ingest/spool/waiting-bytes.ts';
import { DataFolderInUseError, reasonOf, ToolFailedError } from '../errors.ts';
import { createLog } from '../log.ts';
import { backupLine, backupTable, explainFaults, progressTeller } from './backup-lines.ts';
import { interruption, runTool, textOption, type OptionTable } from './command-line.ts';
import { findEmbeddedUrl, givenDatabaseUrl, withDatabase } from './database-client.ts';
import { spoolFolder } from './left-spool.ts';

const HELP = `Writes a backup of the database to one file, as it is at one moment, while Puback runs or not.

  npm run backup -- --to FILE [options]

  --to FILE         the backup, readable for you alone; replaced when it is there, once the new one is complete
  --data-dir DIR    data folder of Puback                                       (DATA_DIR, or ./data)
  --help

With DATABASE_URL set, the backup is of that database. Not in it: sessions and retained messages
(DATA_DIR/sessions), messages that wait in DATA_DIR/spool, credentials.json, roles and settings of the
database server. The file has the readings and the hashes of keys in clear.

Restore it with: npm run restore -- --from FILE

Exit status: 0 the backup is complete and on disk, 2 there is no backup, and nothing is left of it.
`;

const OPTIONS: OptionTable = { to: { type: 'string' }, 'data-dir': { type: 'string' } };
/** A program that holds the data folder may still be starting its database. */
const STARTING_MS = 30_000;
const POLL_MS = 200;

await runTool(HELP, OPTIONS, async (options) => {
  loadEnvFile();
  const to = textOption(options, 'to', '');
  if (to === '') throw new ToolFailedError('--to FILE is missing');
  const dataDir = textOption(options, 'data-dir', process.env['DATA_DIR'] ?? './data');
  const startMs = performance.now();
  const teller = progressTeller();
  const file = resolve(to);
  const signal = interruption();
  const spooled = await waitingBytes(spoolFolder(dataDir));
  const work = withDatabaseUrl(dataDir, (url) =>
    writeBackup({ url, file, signal, onProgress: teller.tell }),
  );
  const report = await explainFaults(work).finally(() => teller.end());
  process.stdout.write(reportText(report, file, performance.now() - startMs));
  if (spooled > 0) process.stderr.write(spoolWarning(spooled, dataDir));
  return 0;
});

/** The database of DATABASE_URL, the running embedded one, or the embedded one started for this. */
async function withDatabaseUrl<T>(dataDir: string, work: (url: string) => Promise<T>): Promise<T> {
  const given = givenDatabaseUrl();
  if (given !== '') return work(given);
  // First, because taking the lock would make a folder that is missing.
  await findEmbeddedUrl(dataDir);
  const release = await lockUnlessRunning(dataDir);
  if (release === null) return work(await findRunningUrl(dataDir));
  try {
    const server = await startEmbedded({ dataDir, log: createLog('error') });
    try {
      return await work(server.url);
    } finally {
      await server.stop();
    }
  } finally {
    await release();
  }
}

async function lockUnlessRunning(dataDir: string): Promise<(() => Promise<void>) | null> {
  try {
    return await lockDataFolder(dataDir);
  } catch (error) {
    if (error instanceof DataFolderInUseError) return null;
    throw error;
  }
}

/** The port may change while the program starts. */
async function findRunningUrl(dataDir: string): Promise<string> {
  const deadline = performance.now() + STARTING_MS;
  for (;;) {
    const url = await findEmbeddedUrl(dataDir);
    try {
      await withDatabase(url, (client) => client.query('SELECT'));
      return url;
    } catch (error) {
      if (performance.now() > deadline) {
        throw new ToolFailedError(
          `a program runs on ${dataDir} and its database does not answer: ${reasonOf(error)}`,
        );
      }
      await delay(POLL_MS);
    }
  }
}

function spoolWarning(bytes: number, dataDir: string): string {
  return `warning: ${bytes} bytes of acknowledged messages waited in ${spoolFolder(dataDir)} when it began, and are not in the backup; make another one when they are stored (puback_spool_messages is 0)\n`;
}

function reportText(report: BackupReport, file: string, tookMs: number): string {
  return `${backupTable(report)}\n${backupLine(report, tookMs)}\nbackup: ${file}\n`;
}

import { createHash } from 'node:crypto';
import { open, readFile, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { HEAD_BYTES } from '../ingest/import/line-splitter.ts';
import { loadEnvFile } from '../config.ts';
import { ToolFailedError, reasonOf } from '../errors.ts';
import {
  interruption,
  runTool,
  textOption,
  textsOption,
  type GivenOptions,
  type OptionTable,
} from './command-line.ts';
import { readCredentials } from './credentials.ts';
import { formatCount } from './figures.ts';
import { ImportClient, PassingFailure, type ShownImport } from './import-client.ts';
import { ImportPace, Patience } from './import-pace.ts';
import { createProgress, type Progress } from './progress.ts';

const HELP = `Imports readings from a file of CSV or NDJSON into a running Puback.

  npm run import -- FILE [options]

  --format csv|ndjson   when neither the name of the file nor its first byte tells
  --source NAME         name of the import (the name of the file)
  --device NAME         device of lines that name none
  --map COLUMN:NAME     take a column of CSV for NAME; may be given several times
  --again               send all of a file again that was imported; nothing is stored twice
  --data-dir DIR        where the program wrote credentials.json (DATA_DIR, or ./data)
  --url URL             instead of the address in credentials.json
  --key-file FILE       a file with an admin key, instead of the one in credentials.json;
                        or PUBACK_ADMIN_KEY
  --help

CSV    device,time,metric,value          or     device,time,temp,rh
       boiler,2026-11-21T08:00:00Z,temp,21.5    boiler,2026-11-21T08:00:00Z,21.5,48
NDJSON {"device":"boiler","ts":1795248000000,"temp":21.5,"rh":48}

Devices must exist. A time is ISO 8601 with a zone, or seconds or milliseconds since 1970. When the
connection is cut or the program restarted, the import goes on where it was; so it does when this is run
again after Ctrl-C.

Exit status: 0 every line is stored, 1 some were refused, 2 it could not be finished.
`;

const OPTIONS: OptionTable = {
  file: { type: 'string' },
  format: { type: 'string' },
  source: { type: 'string' },
  device: { type: 'string' },
  map: { type: 'string', multiple: true },
  again: { type: 'boolean' },
  'data-dir': { type: 'string' },
  url: { type: 'string' },
  'key-file': { type: 'string' },
};

const ASK_EVERY_MS = 1000;
const SHOWN_REFUSALS = 20;

/** What is to be imported. */
interface ImportFile {
  readonly path: string;
  readonly bytes: number;
  readonly source: string;
  readonly fingerprint: string;
  readonly query: URLSearchParams;
}

await runTool(HELP, OPTIONS, async (options) => {
  loadEnvFile();
  const file = await fileOf(options);
  const client = await clientOf(options);
  const progress = createProgress(process.stderr);
  const signal = interruption();
  const result = await importFile(client, file, {
    isAgain: options['again'] === true,
    progress,
    signal,
  });
  return report(client, result);
});

interface RunOptions {
  readonly isAgain: boolean;
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

/** Sends the file until all of it is imported, going on where it was after each failure that passes. */
async function importFile(
  client: ImportClient,
  file: ImportFile,
  { isAgain, progress, signal }: RunOptions,
): Promise<ShownImport> {
  const patience = new Patience();
  // Also the first question: is there a program at all?
  let known = await firstAnswer(client, file);
  const before = known?.importId;
  let mayResume = !isAgain;
  for (;;) {
    const byteOffset = mayResume ? (known?.byteOffset ?? 0) : 0;
    patience.note(byteOffset);
    try {
      const offset = byteOffset > HEAD_BYTES ? byteOffset : 0;
      return await sendOnce(client, file, { offset, mayResume, progress, signal });
    } catch (error) {
      if (signal.aborted) throw interrupted();
      if (!(error instanceof PassingFailure)) throw error;
      const isBefore = error.isBusy && (await watchRunning(client, file, { progress, signal }));
      if (!isBefore) await rest(error.message, patience.next(), { progress, signal });
    }
    if (signal.aborted) throw interrupted();
    known = await client.find(file.source, file.fingerprint).catch((error: unknown) => {
      if (error instanceof PassingFailure) return known;
      throw error;
    });
    mayResume ||= known?.importId !== before;
  }
}

/** @param waitMs null: it has been waited for long enough. @throws {ToolFailedError} */
async function rest(
  fault: string,
  waitMs: number | null,
  { progress, signal }: Pick<RunOptions, 'progress' | 'signal'>,
): Promise<void> {
  if (waitMs === null) throw new ToolFailedError(fault);
  progress.step(`${fault}: going on in ${waitMs / 1000} s`);
  progress.end();
  await delay(waitMs, undefined, { signal }).catch(() => undefined);
}

/**
 * Shows how far an import of the same file is that still runs, for the lines that were under way when it
 * was cut off, until it ends.
 * @returns whether there is one.
 */
async function watchRunning(
  client: ImportClient,
  { bytes, source, fingerprint }: ImportFile,
  { progress, signal }: Pick<RunOptions, 'progress' | 'signal'>,
): Promise<boolean> {
  const pace = new ImportPace(bytes);
  for (let isFirst = true; ; isFirst = false) {
    const shown = await client.find(source, fingerprint).catch(() => null);
    if (shown?.active !== true || signal.aborted) {
      progress.end();
      return !isFirst;
    }
    const line = pace.line(shown, performance.now());
    if (isFirst) progress.step(`still under way from before: ${line}`);
    else progress.show(`still under way from before: ${line}`);
    await delay(ASK_EVERY_MS, undefined, { signal }).catch(() => undefined);
  }
}

async function firstAnswer(client: ImportClient, file: ImportFile): Promise<ShownImport | null> {
  try {
    return await client.find(file.source, file.fingerprint);
  } catch (error) {
    if (!(error instanceof PassingFailure)) throw error;
    throw new ToolFailedError(
      `Puback does not answer: ${error.message}. Start it in another terminal: npm start`,
    );
  }
}

interface SendOptions extends Omit<RunOptions, 'isAgain'> {
  readonly offset: number;
  readonly mayResume: boolean;
}

async function sendOnce(
  client: ImportClient,
  { path, bytes, source, fingerprint, query }: ImportFile,
  { offset, mayResume, progress, signal }: SendOptions,
): Promise<ShownImport> {
  const asked = new URLSearchParams(query);
  asked.set('resume', String(mayResume));
  asked.set('offset', String(offset));
  const pace = new ImportPace(bytes);
  let isAsking = false;
  const asking = setInterval(() => {
    if (isAsking) return;
    isAsking = true;
    client
      .find(source, fingerprint)
      .then((shown) => {
        if (shown !== null) progress.show(pace.line(shown, performance.now()));
      })
      // The upload itself tells what is wrong.
      .catch(() => undefined)
      .finally(() => {
        isAsking = false;
      });
  }, ASK_EVERY_MS);
  try {
    return await client.upload({ path, query: asked, offset }, signal);
  } finally {
    clearInterval(asking);
    progress.end();
  }
}

async function report(client: ImportClient, result: ShownImport): Promise<number> {
  const { importId, linesRead, linesRefused } = result;
  const refused = linesRefused === 0 ? 'none refused' : `${formatCount(linesRefused)} refused`;
  process.stdout.write(`${formatCount(linesRead)} lines read, ${refused}\n`);
  if (linesRefused === 0) return 0;
  for (const { line, code, detail } of await client.refusals(importId, SHOWN_REFUSALS)) {
    // A file may hold what a terminal takes for a command.
    process.stdout.write(`  line ${line}: ${code}: ${detail.replace(/\p{Cc}/gu, '?')}\n`);
  }
  if (linesRefused > SHOWN_REFUSALS) process.stdout.write('  …\n');
  process.stdout.write(`all of them: GET ${client.refusalsUrl(importId)}\n`);
  return 1;
}

async function fileOf(options: GivenOptions): Promise<ImportFile> {
  const path = textOption(options, 'file', '');
  if (path === '') throw new ToolFailedError('name the file: npm run import -- FILE');
  const found = await stat(path).catch((error: unknown) => {
    throw new ToolFailedError(`${path} cannot be read: ${reasonOf(error)}`);
  });
  if (!found.isFile()) throw new ToolFailedError(`${path} is not a file`);
  const head = await headOf(path);
  const source = textOption(options, 'source', basename(path));
  const query = new URLSearchParams({ format: formatOf(options, path, head), source });
  const device = textOption(options, 'device', '');
  if (device !== '') query.set('device', device);
  for (const pair of textsOption(options, 'map')) query.append('map', pair);
  const fingerprint = createHash('sha256').update(head).digest('hex');
  return { path, bytes: found.size, source, fingerprint, query };
}

async function headOf(path: string): Promise<Buffer> {
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read({
      buffer: Buffer.alloc(HEAD_BYTES),
      position: 0,
    });
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

function formatOf(options: GivenOptions, path: string, head: Buffer): string {
  const given = textOption(options, 'format', '');
  if (given === 'csv' || given === 'ndjson') return given;
  if (given !== '') throw new ToolFailedError('--format must be csv or ndjson');
  if (/\.(?:ndjson|jsonl)$/i.test(path)) return 'ndjson';
  return head.toString('latin1').trimStart().startsWith('{') ? 'ndjson' : 'csv';
}

async function clientOf(options: GivenOptions): Promise<ImportClient> {
  const url = textOption(options, 'url', '');
  const keyFile = textOption(options, 'key-file', '');
  const key =
    keyFile === '' ? (process.env['PUBACK_ADMIN_KEY'] ?? '') : (await readKey(keyFile)).trim();
  if (url !== '' && key !== '') return new ImportClient(url, key);
  const credentials = await readCredentials(
    textOption(options, 'data-dir', process.env['DATA_DIR'] ?? './data'),
  );
  return new ImportClient(
    url === '' ? credentials.httpUrl : url,
    key === '' ? credentials.adminKey : key,
  );
}

function readKey(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((error: unknown) => {
    throw new ToolFailedError(`${path} cannot be read: ${reasonOf(error)}`);
  });
}

function interrupted(): ToolFailedError {
  return new ToolFailedError('interrupted; run it again to go on');
}

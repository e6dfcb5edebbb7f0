import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { readdir, readFile, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { EmbeddedDatabaseError } from '../errors.ts';
import { runAs, toolEnvironment, type ServerUser } from './embedded-tool.ts';

/** What `postmaster.pid` says of the server that wrote it. */
export interface Postmaster {
  readonly pid: number;
  readonly port: number;
  readonly status: 'starting' | 'ready' | 'stopping' | 'unknown';
}

const POLL_MS = 20;
/** Time for each step of a stop: open transactions end at once, the rest is the last checkpoint. */
const FAST_STOP_MS = 20_000;
const IMMEDIATE_STOP_MS = 5000;
const KILL_MS = 2000;

/**
 * How PostgreSQL is told its data folder. On Linux it gets it as its working directory, which root
 * has entered for it: no right on the folders above is needed, so that the data may lie in a folder
 * that is closed to the server's user. The path never gets too long either.
 */
export function dataFolderArgument(pgData: string): string {
  return process.platform === 'linux' ? '/proc/self/cwd' : pgData;
}

/**
 * The name that the processes of one cluster carry in their command lines, made of the identity of
 * its folder. It tells them from other servers, and from a process that was given a pid anew.
 */
export async function clusterName(pgData: string): Promise<string> {
  const { dev, ino } = await stat(pgData, { bigint: true });
  return `puback-${dev.toString(16)}-${ino.toString(16).padStart(16, '0')}`;
}

/** @returns null when no server wrote the file, or has not finished its first line. */
export async function readPostmaster(pgData: string): Promise<Postmaster | null> {
  let text: string;
  try {
    text = await readFile(join(pgData, 'postmaster.pid'), 'utf8');
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw err;
  }
  const lines = text.split('\n');
  const pid = Number(lines[0]);
  if (!Number.isInteger(pid) || pid <= 0) return null;
  const word = lines[7]?.trim() ?? '';
  const status = word === 'starting' || word === 'ready' || word === 'stopping' ? word : 'unknown';
  return { pid, port: Number(lines[3]), status };
}

/** @returns false for a pid that is gone, a zombie, or that belongs to something else by now. */
export async function isServerProcess(pid: number, name: string): Promise<boolean> {
  if (process.platform !== 'linux') {
    const { stdout } = spawnSync('ps', ['-o', 'command=', '-p', String(pid)], { encoding: 'utf8' });
    return stdout.includes(name);
  }
  try {
    return (await readFile(`/proc/${pid}/cmdline`, 'utf8')).includes(name);
  } catch (err) {
    // Gone, or somebody else's on a system that hides those: neither is our server.
    const { code } = err as NodeJS.ErrnoException;
    if (code && ['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes(code)) return false;
    throw err;
  }
}

/**
 * Clears the way for a start, when no server runs on the folder: ends processes that a killed server
 * left behind, which would hold its shared memory, and removes a `postmaster.pid` whose pid something
 * else has by now, which PostgreSQL would take for a running server. One whose pid is gone is left to
 * PostgreSQL, which checks more by it.
 */
export async function clearRemains(pgData: string, name: string): Promise<void> {
  const orphans = await findOrphans(name);
  for (const pid of orphans) sendSignal(pid, 'SIGKILL');
  for (const pid of orphans) await waitUntilGone(pid, name, KILL_MS);
  const postmaster = await readPostmaster(pgData);
  if (postmaster !== null && sendSignal(postmaster.pid, 0) !== 'gone') {
    await unlink(join(pgData, 'postmaster.pid'));
  }
}

/** Only Linux: elsewhere they end by themselves when they next look for their server. */
async function findOrphans(name: string): Promise<number[]> {
  if (process.platform !== 'linux') return [];
  const orphans: number[] = [];
  for (const entry of await readdir('/proc')) {
    const pid = Number(entry);
    if (Number.isInteger(pid) && (await isServerProcess(pid, name))) orphans.push(pid);
  }
  return orphans;
}

/** What a server is started with. */
export interface ServerStart {
  readonly postgres: string;
  readonly pgData: string;
  readonly name: string;
  readonly port: number;
  readonly user: ServerUser | null;
  /** Open file that takes all the server says. A file never blocks it, also when we are gone. */
  readonly logFile: number;
}

/**
 * Starts the server in a session of its own: a Ctrl-C for the program does not reach it. It does not
 * keep the program alive and outlives it. What the promise of a PUBACK rests on is fixed here; the
 * other settings lie in `postgresql.conf`.
 * @throws {EmbeddedDatabaseError} it cannot be run at all.
 */
export async function spawnServer(start: ServerStart): Promise<ChildProcess & { pid: number }> {
  const settings = {
    listen_addresses: '127.0.0.1',
    port: start.port,
    unix_socket_directories: '',
    cluster_name: start.name,
    fsync: 'on',
    synchronous_commit: 'on',
    full_page_writes: 'on',
    logging_collector: 'off',
    log_destination: 'stderr',
  };
  const parameters = Object.entries(settings).flatMap(([key, value]) => ['-c', `${key}=${value}`]);
  const child = spawn(start.postgres, ['-D', dataFolderArgument(start.pgData), ...parameters], {
    ...runAs(start.user),
    cwd: start.pgData,
    env: toolEnvironment,
    detached: true,
    stdio: ['ignore', start.logFile, start.logFile],
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.on('error', (err) => reject(new EmbeddedDatabaseError('start', err.message, err)));
  });
  child.unref();
  return child as ChildProcess & { pid: number };
}

/**
 * Stops a server, started here or adopted: fast (sessions are ended, all is written), after 20 s
 * immediately (the next start recovers), after 5 s more by force.
 */
export async function stopServer(pid: number, name: string): Promise<void> {
  const steps = [
    ['SIGINT', FAST_STOP_MS],
    ['SIGQUIT', IMMEDIATE_STOP_MS],
    ['SIGKILL', KILL_MS],
  ] as const;
  for (const [signal, waitMs] of steps) {
    if (!(await isServerProcess(pid, name))) return;
    if (sendSignal(pid, signal) === 'refused') {
      throw new EmbeddedDatabaseError('stop', `process ${pid} belongs to another user`);
    }
    if (await waitUntilGone(pid, name, waitMs)) return;
  }
  throw new EmbeddedDatabaseError('stop', `process ${pid} does not end`);
}

/** @returns whether the process is gone. */
export async function waitUntilGone(pid: number, name: string, waitMs: number): Promise<boolean> {
  const until = Date.now() + waitMs;
  while (await isServerProcess(pid, name)) {
    if (Date.now() >= until) return false;
    await sleep(POLL_MS);
  }
  return true;
}

function sendSignal(pid: number, signal: NodeJS.Signals | 0): 'sent' | 'gone' | 'refused' {
  try {
    process.kill(pid, signal);
    return 'sent';
  } catch (err) {
    return (err as NodeJS.ErrnoException).code === 'ESRCH' ? 'gone' : 'refused';
  }
}

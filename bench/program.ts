import { spawn, type ChildProcess } from 'node:child_process';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ToolFailedError } from '../errors.ts';
import { readCredentials, type Credentials } from './credentials.ts';

/** How a program under test is started. */
export interface ProgramOptions {
  dataDir: string;
  /** Settings beside DATA_DIR; whatever else the caller's environment holds is passed on. */
  environment: Readonly<Record<string, string>>;
  /** Arguments of the program. */
  arguments?: readonly string[];
  /** File that takes what the program prints and logs; an older one is added to. */
  logFile: string;
}

/** How a process ended. */
export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** Puback as a process of its own. */
export interface Program {
  readonly pid: number;
  readonly dataDir: string;
  readonly credentials: Credentials;
  /** Settles when the process has ended, whoever ended it. */
  readonly exited: Promise<Exit>;
  kill(signal: NodeJS.Signals): void;
  /** SIGTERM, and SIGKILL after 30 s. */
  stop(): Promise<Exit>;
}

const READY_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 30_000;
const POLL_MS = 25;
const LOG_TAIL = 2000;
/** Flags of Node.js with which `npm start` and the image start the program too; docs/adr/0035 has the reason. */
export const PROGRAM_FLAGS = ['--max-semi-space-size=32'];

/**
 * Arguments of node that run a file of the project: its built form when this file is built, its source
 * through tsx when this file runs as source (in tests).
 * @param file path below the project's folder, ending in `.ts`
 */
export function nodeArguments(file: string): string[] {
  const root = new URL('../', import.meta.url);
  if (import.meta.url.endsWith('.ts')) {
    return ['--import', 'tsx', fileURLToPath(new URL(file, root))];
  }
  return ['--enable-source-maps', fileURLToPath(new URL(file.replace(/\.ts$/, '.js'), root))];
}

/**
 * Starts the program and waits until `/health/ready` answers 200. It has a process group of its own, so
 * Ctrl-C in the terminal reaches only the tool, which stops it in its own order.
 * @throws {ToolFailedError} when it ends or is not ready within a minute; with the end of its log.
 */
export async function startProgram(options: ProgramOptions): Promise<Program> {
  const log = await open(options.logFile, 'a', 0o600);
  const args = [...PROGRAM_FLAGS, ...nodeArguments('main.ts'), ...(options.arguments ?? [])];
  const child = spawn(process.execPath, args, {
    env: { ...process.env, ...options.environment, DATA_DIR: options.dataDir },
    stdio: ['ignore', log.fd, log.fd],
    detached: true,
  });
  await log.close();
  const exited = exitOf(child);
  let exit: Exit | null = null;
  void exited.then((ended) => {
    exit = ended;
  });
  const deadline = performance.now() + READY_TIMEOUT_MS;
  for (;;) {
    const credentials = await readyCredentials(options.dataDir);
    if (exit !== null) break;
    if (credentials !== null) {
      return { ...programOf(child, credentials, exited), dataDir: options.dataDir };
    }
    if (performance.now() > deadline) break;
    await delay(POLL_MS);
  }
  child.kill('SIGKILL');
  const ending = exit === null ? 'was not ready within a minute' : `ended: ${JSON.stringify(exit)}`;
  throw new ToolFailedError(`the program ${ending}\n${await logTail(options.logFile)}`);
}

/** Process id of the embedded PostgreSQL of a data folder, or null when none has been started there. */
export async function findDatabasePid(dataDir: string): Promise<number | null> {
  const path = join(dataDir, 'postgres', 'postmaster.pid');
  const text = await readFile(path, 'utf8').catch(nullWhenMissing);
  const pid = Number(text?.split('\n')[0]);
  return Number.isInteger(pid) && pid > 0 ? pid : null;
}

/** Whether a process of this id exists. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}

/** Stops an embedded PostgreSQL whose program was killed, so that its folder can be removed. */
export async function stopLeftDatabase(dataDir: string): Promise<void> {
  const pid = await findDatabasePid(dataDir);
  if (pid === null || !isAlive(pid)) return;
  process.kill(pid, 'SIGINT');
  const deadline = performance.now() + STOP_TIMEOUT_MS;
  while (isAlive(pid) && performance.now() < deadline) await delay(POLL_MS);
}

/** The end of a log file, for a person who looks for the reason of a failure. */
export async function logTail(path: string): Promise<string> {
  const text = await readFile(path, 'utf8').catch(nullWhenMissing);
  return (text ?? '').slice(-LOG_TAIL);
}

function programOf(
  child: ChildProcess,
  credentials: Credentials,
  exited: Promise<Exit>,
): Omit<Program, 'dataDir'> {
  return {
    pid: child.pid ?? 0,
    credentials,
    exited,
    kill: (signal) => {
      child.kill(signal);
    },
    stop: async () => {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS);
      const exit = await exited;
      clearTimeout(timer);
      return exit;
    },
  };
}

function exitOf(child: ChildProcess): Promise<Exit> {
  return new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }));
    child.once('error', () => resolve({ code: null, signal: null }));
  });
}

/** Credentials once the program behind them is ready. The file of an earlier start may be there still. */
async function readyCredentials(dataDir: string): Promise<Credentials | null> {
  const credentials = await readCredentials(dataDir).catch(nullWhenFailed);
  if (credentials === null) return null;
  const answer = await fetch(`${credentials.httpUrl}/health/ready`, {
    signal: AbortSignal.timeout(2000),
  }).catch(nullWhenFailed);
  await answer?.body?.cancel();
  return answer?.ok === true ? credentials : null;
}

/** Not there yet: asked again until the deadline. */
function nullWhenFailed(): null {
  return null;
}

function nullWhenMissing(error: NodeJS.ErrnoException): null {
  if (error.code === 'ENOENT') return null;
  throw error;
}

import type { ChildProcess } from 'node:child_process';
import { realpath } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { EmbeddedDatabaseError, reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import { findBinaries, type Binaries } from './embedded-binaries.ts';
import * as cluster from './embedded-cluster.ts';
import { boundServerLog, openServerLog, readLogTail } from './embedded-log.ts';
import {
  clearRemains,
  clusterName,
  isServerProcess,
  readPostmaster,
  spawnServer,
  stopServer,
  waitUntilGone,
} from './embedded-process.ts';
import { waitUntilReady } from './embedded-ready.ts';
import type { ServerUser } from './embedded-tool.ts';

/** Where the embedded database lives and who is told about it. */
export interface EmbeddedOptions {
  /** Existing folder that this program has locked (`lockDataFolder`). */
  readonly dataDir: string;
  readonly log: Logger;
}

/** A running PostgreSQL on 127.0.0.1 that is started again whenever it ends by itself. */
export interface EmbeddedDatabase {
  /** Connection string with the password. It stays the same for the life of this object. */
  readonly url: string;
  /** The server's process; another one after a restart. */
  readonly pid: number;
  /** Told each time the server has ended without {@link stop}; it is being started again then. */
  onExit(listener: (reason: string) => void): void;
  /** Stops the server, within 27 s in the worst case. Calling it twice does no harm. */
  stop(): Promise<void>;
}

/** A server that says it is ready and does not answer within this is replaced. */
const ANSWER_MS = 3000;
const STARTING_MS = 600_000;
/** Bound of the retries of a start, for what passes: a port in use, memory of a killed server. */
const START_RETRY_MS = 8000;
const START_RETRY_DELAY_MS = 300;
const STOPPING_MS = 20_000;
const WATCH_MS = 1000;
const LOG_BOUND_MS = 60_000;
const BACKOFF_MIN_MS = 50;
const BACKOFF_MAX_MS = 10_000;
/** A server that ran this long starts again with the least backoff. */
const STEADY_MS = 60_000;
const LOUD_ATTEMPT = 5;

/**
 * Starts the embedded PostgreSQL on `DATA_DIR/postgres`, made at the first start. A server that a
 * killed program left running is adopted. As root the server runs as another user.
 * @throws {EmbeddedDatabaseError} it cannot be set up or started; the message ends with what the
 * server said.
 */
export async function startEmbedded(options: EmbeddedOptions): Promise<EmbeddedDatabase> {
  const start = Date.now();
  const { log } = options;
  const dataDir = await realpath(options.dataDir);
  const user = await cluster.chooseServerUser(dataDir);
  let binaries: Binaries | null = null;
  const getBinaries = async () => (binaries ??= await findBinaries(dataDir, user));
  if (!(await cluster.hasCluster(dataDir))) {
    log.info({ dataDir, user: user?.name }, 'making the embedded database');
    await cluster.makeCluster(dataDir, await getBinaries(), user);
  }
  const pgData = cluster.clusterFolder(dataDir);
  const site = { dataDir, pgData, name: await clusterName(pgData), user, getBinaries };
  const adopted = await adoptServer(site, log);
  const server = adopted ?? (await startFirst(site));
  const embedded = new SupervisedServer(site, server, log);
  await boundServerLog(dataDir);
  const { pid, url } = server;
  const facts = {
    pid,
    port: cluster.portOf(url),
    user: user?.name,
    durationMs: Date.now() - start,
  };
  log.info({ ...facts, adopted: adopted !== null }, 'embedded database ready');
  return embedded;
}

/** All that a start needs to know. */
interface Site {
  readonly dataDir: string;
  readonly pgData: string;
  readonly name: string;
  readonly user: ServerUser | null;
  readonly getBinaries: () => Promise<Binaries>;
}

/** `child` is null for an adopted server. */
interface RunningServer {
  readonly pid: number;
  readonly url: string;
  readonly child: ChildProcess | null;
}

async function adoptServer(site: Site, log: Logger): Promise<RunningServer | null> {
  const postmaster = await readPostmaster(site.pgData);
  const url = await cluster.readUrl(site.dataDir);
  if (postmaster === null || url === null) return null;
  const { pid } = postmaster;
  if (!(await isServerProcess(pid, site.name))) return null;
  if (postmaster.status === 'stopping' && (await waitUntilGone(pid, site.name, STOPPING_MS))) {
    return null;
  }
  const { signal } = new AbortController();
  const startingMs = postmaster.status === 'starting' ? STARTING_MS : ANSWER_MS;
  try {
    await waitUntilReady({ ...site, pid, url }, { startingMs, answerMs: ANSWER_MS, signal });
    return { pid, url, child: null };
  } catch (err) {
    log.warn(
      { pid, err: reasonOf(err) },
      'running embedded database does not answer, replacing it',
    );
    await stopServer(pid, site.name);
    return null;
  }
}

async function startFirst(site: Site): Promise<RunningServer> {
  const until = Date.now() + START_RETRY_MS;
  const { signal } = new AbortController();
  await assertSameMajor(site);
  for (;;) {
    const url = await cluster.settleUrl(site.dataDir);
    try {
      return await startServer(site, url, signal);
    } catch (err) {
      if (Date.now() >= until) throw err;
      await sleep(START_RETRY_DELAY_MS);
    }
  }
}

async function assertSameMajor(site: Site): Promise<void> {
  const made = await cluster.readMajorVersion(site.dataDir);
  const { majorVersion } = await site.getBinaries();
  if (made === majorVersion) return;
  throw new EmbeddedDatabaseError(
    'another version',
    `${site.pgData} was made by PostgreSQL ${made} and this Puback has ${majorVersion}; dump it with the Puback that made it and restore the dump`,
  );
}

/** One attempt. A server that does not get ready is stopped again. */
async function startServer(site: Site, url: string, signal: AbortSignal): Promise<RunningServer> {
  await clearRemains(site.pgData, site.name);
  const { postgres } = await site.getBinaries();
  const serverLog = await openServerLog(site.dataDir);
  const port = cluster.portOf(url);
  try {
    const child = await spawnServer({ ...site, postgres, port, logFile: serverLog.fd });
    try {
      const wait = { startingMs: STARTING_MS, answerMs: STARTING_MS, signal };
      await waitUntilReady({ ...site, pid: child.pid, url }, wait);
    } catch (err) {
      await stopServer(child.pid, site.name);
      const said = await readLogTail(site.dataDir, serverLog.startBytes);
      throw new EmbeddedDatabaseError('start', `${reasonOf(err)}; the server said: ${said}`, err);
    }
    return { pid: child.pid, url, child };
  } finally {
    await serverLog.close();
  }
}

/** Watches a server and starts it again, on the same port, with growing pauses. */
class SupervisedServer implements EmbeddedDatabase {
  readonly url: string;
  readonly #site: Site;
  readonly #log: Logger;
  readonly #listeners: ((reason: string) => void)[] = [];
  readonly #stopping = new AbortController();
  readonly #timers: NodeJS.Timeout[];
  #pid: number;
  #startedAt = Date.now();
  #backoffMs = BACKOFF_MIN_MS;
  #recovery: Promise<void> | null = null;
  #stopped: Promise<void> | null = null;

  constructor(site: Site, server: RunningServer, log: Logger) {
    this.#site = site;
    this.#log = log;
    this.url = server.url;
    this.#pid = server.pid;
    this.#watchChild(server.child);
    this.#timers = [
      setInterval(() => void this.#check(), WATCH_MS).unref(),
      setInterval(() => void this.#boundLog(), LOG_BOUND_MS).unref(),
    ];
  }

  get pid(): number {
    return this.#pid;
  }

  onExit(listener: (reason: string) => void): void {
    this.#listeners.push(listener);
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stopOnce();
    return this.#stopped;
  }

  async #stopOnce(): Promise<void> {
    this.#stopping.abort();
    for (const timer of this.#timers) clearInterval(timer);
    await this.#recovery;
    await stopServer(this.#pid, this.#site.name);
    this.#log.info({ pid: this.#pid }, 'embedded database stopped');
  }

  #watchChild(child: ChildProcess | null): void {
    child?.once('exit', (status, signal) => {
      if (child.pid === this.#pid) this.#lost(signal ?? `exit status ${status}`);
    });
  }

  /** An adopted server is not our child: only looking at it tells that it has ended. */
  async #check(): Promise<void> {
    const pid = this.#pid;
    if (await isServerProcess(pid, this.#site.name)) return;
    if (pid === this.#pid) this.#lost('it is gone');
  }

  async #boundLog(): Promise<void> {
    try {
      await boundServerLog(this.#site.dataDir);
    } catch (err) {
      this.#log.warn({ err: reasonOf(err) }, 'embedded database log cannot be bounded');
    }
  }

  #lost(reason: string): void {
    if (this.#recovery !== null || this.#stopping.signal.aborted) return;
    this.#log.warn({ pid: this.#pid, reason }, 'embedded database ended, starting it again');
    this.#recovery = this.#recover().finally(() => (this.#recovery = null));
    for (const listener of this.#listeners) listener(reason);
  }

  /** Tries until it runs or {@link stop} is called: a full disk may have room again in an hour. */
  async #recover(): Promise<void> {
    const { signal } = this.#stopping;
    if (Date.now() - this.#startedAt > STEADY_MS) this.#backoffMs = BACKOFF_MIN_MS;
    for (let attempt = 1; !signal.aborted; attempt += 1) {
      await sleep(this.#backoffMs, null, { ref: false, signal }).catch(ignoreAbort);
      this.#backoffMs = Math.min(this.#backoffMs * 2, BACKOFF_MAX_MS);
      if (signal.aborted) return;
      try {
        const server = await startServer(this.#site, this.url, signal);
        this.#pid = server.pid;
        this.#startedAt = Date.now();
        this.#watchChild(server.child);
        this.#log.info({ pid: server.pid, attempt }, 'embedded database runs again');
        return;
      } catch (err) {
        const level = attempt === LOUD_ATTEMPT ? 'error' : 'debug';
        this.#log[level]({ attempt, err: reasonOf(err) }, 'embedded database does not start');
      }
    }
  }
}

/** The abort of a pause only means {@link EmbeddedDatabase.stop}, which the caller looks at next. */
function ignoreAbort(err: unknown): void {
  if ((err as Error).name !== 'AbortError') throw err;
}

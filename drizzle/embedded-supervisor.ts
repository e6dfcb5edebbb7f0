import type { ChildProcess } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import { boundServerLog } from './embedded-log.ts';
import { isServerProcess, stopServer } from './embedded-process.ts';
import { startServer, type RunningServer, type Site } from './embedded-server.ts';

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

const WATCH_MS = 1000;
const LOG_BOUND_MS = 60_000;
const BACKOFF_MIN_MS = 50;
const BACKOFF_MAX_MS = 10_000;
/** A server that ran this long starts again with the least backoff. */
const STEADY_MS = 60_000;
const LOUD_ATTEMPT = 5;

/** Watches a server and starts it again, on the same port, with growing pauses. */
export class SupervisedServer implements EmbeddedDatabase {
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
    this.#log.info({ serverPid: this.#pid }, 'embedded database stopped');
  }

  #watchChild(child: ChildProcess | null): void {
    child?.once('exit', (status, signal) => {
      if (child.pid === this.#pid) this.#lost(signal ?? `exit status ${status}`);
    });
  }

  /** An adopted server is not our child: only looking at it tells that it has ended. */
  async #check(): Promise<void> {
    const pid = this.#pid;
    try {
      if (await isServerProcess(pid, this.#site.name)) return;
      if (pid === this.#pid) this.#lost('it is gone');
    } catch (err) {
      this.#log.warn(
        { serverPid: pid, err: reasonOf(err) },
        'embedded database cannot be looked at',
      );
    }
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
    this.#log.warn({ serverPid: this.#pid, reason }, 'embedded database ended, starting it again');
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
        this.#log.info({ serverPid: server.pid, attempt }, 'embedded database runs again');
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

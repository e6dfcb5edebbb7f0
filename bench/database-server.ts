import { readdirSync, readFileSync } from 'node:fs';
import { appendFile, chmod, mkdir, readdir, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { findBinaries, type Binaries } from '../drizzle/embedded-binaries.ts';
import {
  chooseServerUser,
  clusterFolder,
  makeCluster,
  readUrl,
  settleUrl,
} from '../drizzle/embedded-cluster.ts';
import { clusterName, isServerProcess, stopServer } from '../drizzle/embedded-process.ts';
import { startServer, type Site } from '../drizzle/embedded-server.ts';
import { ToolFailedError } from '../errors.ts';
import { withDatabase } from './database-client.ts';

/** Postgres settings by name, as `postgresql.conf` takes them. */
export type ServerSettings = Readonly<Record<string, string>>;

const GONE_MS_MAX = 20_000;
const POLL_MS = 20;
/** Who the program logs in as: no superuser, whom connections are kept free for. */
const PROGRAM_ROLE = 'puback_program';

/**
 * A PostgreSQL server of its own, made of the embedded programs and run beside the program under test as
 * an external one: to be killed, stopped, frozen and started again by whoever made it.
 */
export class DatabaseServer {
  readonly #site: Site;
  #url = '';
  #pid = 0;

  private constructor(site: Site) {
    this.#site = site;
  }

  /** Makes a cluster below the folder, which need not exist, and starts it. */
  static async make(folder: string, settings: ServerSettings = {}): Promise<DatabaseServer> {
    await mkdir(folder, { recursive: true, mode: 0o711 });
    await chmod(folder, 0o711);
    const dataDir = await realpath(folder);
    const user = await chooseServerUser(dataDir);
    const binaries: Binaries = await findBinaries(dataDir, user);
    await makeCluster(dataDir, binaries, user);
    const pgData = clusterFolder(dataDir);
    const lines = Object.entries(settings).map(([name, value]) => `${name} = '${value}'\n`);
    await appendFile(join(pgData, 'postgresql.conf'), lines.join(''));
    const getBinaries = () => Promise.resolve(binaries);
    const name = await clusterName(pgData);
    const server = new DatabaseServer({ dataDir, pgData, name, user, getBinaries });
    await server.start();
    return server;
  }

  /** Connection string of the superuser. */
  get url(): string {
    return this.#url;
  }

  /** The folder PGDATA. */
  get pgData(): string {
    return this.#site.pgData;
  }

  /** Starts it; it is ready then. Nothing to do when it runs. */
  async start(): Promise<void> {
    if (await this.isRunning()) return;
    const url =
      (await readUrl(this.#site.dataDir)) === null ? '' : await settleUrl(this.#site.dataDir);
    if (this.#url !== '' && url !== this.#url) throw new ToolFailedError('its port was taken');
    const running = await startServer(this.#site, url, new AbortController().signal);
    this.#url = url;
    this.#pid = running.pid;
  }

  isRunning(): Promise<boolean> {
    return this.#pid === 0 ? Promise.resolve(false) : isServerProcess(this.#pid, this.#site.name);
  }

  /** Stops it; `immediate` leaves the recovery to the next start. */
  async stop(mode: 'fast' | 'immediate' = 'fast'): Promise<void> {
    if (!(await this.isRunning())) return;
    if (mode === 'fast') {
      await stopServer(this.#pid, this.#site.name);
      return;
    }
    await this.thaw();
    process.kill(this.#pid, 'SIGQUIT');
    await this.#waitUntilGone();
  }

  /** SIGKILL for its first process; the others end by themselves or at the next start. */
  async kill(): Promise<void> {
    if (!(await this.isRunning())) return;
    process.kill(this.#pid, 'SIGKILL');
    await this.#waitUntilGone();
  }

  /** SIGSTOP for every process. */
  async freeze(): Promise<void> {
    const stopped = new Set<number>();
    // The first process is stopped in the first round: after it no new ones come.
    for (let round = 0; round < 3; round += 1) {
      for (const pid of await this.#processes()) {
        if (!stopped.has(pid)) signalOrGone(pid, 'SIGSTOP');
        stopped.add(pid);
      }
    }
  }

  /** SIGCONT for every process. */
  async thaw(): Promise<void> {
    for (const pid of await this.#processes()) signalOrGone(pid, 'SIGCONT');
  }

  /**
   * Makes a database that an ordinary role owns.
   * @returns the connection string of that role.
   */
  async makeDatabase(name: string): Promise<string> {
    const { password } = new URL(this.#url);
    await withDatabase(this.#url, async (client) => {
      const { rowCount } = await client.query('SELECT FROM pg_roles WHERE rolname = $1', [
        PROGRAM_ROLE,
      ]);
      if (rowCount === 0) {
        await client.query(
          `CREATE ROLE ${PROGRAM_ROLE} LOGIN CREATEROLE PASSWORD '${decodeURIComponent(password)}'`,
        );
      }
      await client.query(`CREATE DATABASE ${name} OWNER ${PROGRAM_ROLE}`);
    });
    const url = new URL(this.urlOf(name));
    url.username = PROGRAM_ROLE;
    return url.href;
  }

  /** Connection string of the superuser for a database. */
  urlOf(name: string): string {
    const url = new URL(this.#url);
    url.pathname = `/${name}`;
    return url.href;
  }

  /** SIGKILL for every process, also frozen ones, at once: for the end of a process that waits for nothing. */
  abandon(): void {
    for (const entry of readdirSync('/proc')) {
      if (/^\d+$/.test(entry) && commandLineOf(entry).includes(this.#site.name)) {
        signalOrGone(Number(entry), 'SIGKILL');
      }
    }
  }

  /** Stops it, however it is, and removes its folder. */
  async remove(): Promise<void> {
    await this.thaw();
    await this.stop('immediate');
    await rm(this.#site.dataDir, { recursive: true, force: true, maxRetries: 5 });
  }

  async #waitUntilGone(): Promise<void> {
    const deadline = performance.now() + GONE_MS_MAX;
    while (await this.isRunning()) {
      if (performance.now() > deadline) throw new ToolFailedError('the database does not end');
      await delay(POLL_MS);
    }
  }

  /** The first process, then the others. */
  async #processes(): Promise<number[]> {
    const found: number[] = [];
    for (const entry of await readdir('/proc')) {
      const pid = Number(entry);
      if (!Number.isInteger(pid) || pid === this.#pid) continue;
      if (await isServerProcess(pid, this.#site.name)) found.push(pid);
    }
    return [this.#pid, ...found];
  }
}

function commandLineOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    // Gone meanwhile.
    return '';
  }
}

function signalOrGone(pid: number, signal: NodeJS.Signals): void {
  if (pid <= 0) return;
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

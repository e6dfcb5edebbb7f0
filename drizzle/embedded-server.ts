import type { ChildProcess } from 'node:child_process';
import { EmbeddedDatabaseError, reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { Binaries } from './embedded-binaries.ts';
import { portOf, readUrl } from './embedded-cluster.ts';
import { openServerLog, readLogTail } from './embedded-log.ts';
import {
  clearRemains,
  isServerProcess,
  readPostmaster,
  spawnServer,
  stopServer,
  waitUntilGone,
} from './embedded-process.ts';
import { waitUntilReady } from './embedded-ready.ts';
import type { ServerUser } from './embedded-tool.ts';

/** All that a start needs to know. */
export interface Site {
  readonly dataDir: string;
  readonly pgData: string;
  readonly name: string;
  readonly user: ServerUser | null;
  readonly getBinaries: () => Promise<Binaries>;
}

/** `child` is null for an adopted server. */
export interface RunningServer {
  readonly pid: number;
  readonly url: string;
  readonly child: ChildProcess | null;
}

/** A server that says it is ready and does not answer within this is replaced. */
const ANSWER_MS = 3000;
const STARTING_MS = 600_000;
const STOPPING_MS = 20_000;

/**
 * Takes over the server that a killed program left running. One that is stopping is waited for; one
 * that does not answer with our password on our port is stopped.
 * @returns null when no server runs any more.
 */
export async function adoptServer(site: Site, log: Logger): Promise<RunningServer | null> {
  const postmaster = await readPostmaster(site.pgData);
  const url = await readUrl(site.dataDir);
  if (postmaster === null) return null;
  const { pid } = postmaster;
  if (!(await isServerProcess(pid, site.name))) return null;
  if (postmaster.status === 'stopping' && (await waitUntilGone(pid, site.name, STOPPING_MS))) {
    return null;
  }
  const { signal } = new AbortController();
  const startingMs = postmaster.status === 'starting' ? STARTING_MS : ANSWER_MS;
  try {
    if (url === null || portOf(url) !== postmaster.port) throw new Error('its port is not ours');
    await waitUntilReady({ ...site, pid, url }, { startingMs, answerMs: ANSWER_MS, signal });
    return { pid, url, child: null };
  } catch (err) {
    log.warn(
      { serverPid: pid, err: reasonOf(err) },
      'running embedded database does not answer, replacing it',
    );
    await stopServer(pid, site.name);
    return null;
  }
}

/**
 * Starts a server and waits until it is ready: one attempt. One that does not get ready is stopped.
 * @throws {EmbeddedDatabaseError} with what the server said.
 */
export async function startServer(
  site: Site,
  url: string,
  signal: AbortSignal,
): Promise<RunningServer> {
  await clearRemains(site.pgData, site.name);
  const { postgres } = await site.getBinaries();
  const serverLog = await openServerLog(site.dataDir);
  const port = portOf(url);
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

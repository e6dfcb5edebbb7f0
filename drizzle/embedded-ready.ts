import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { EmbeddedDatabaseError, reasonOf } from '../errors.ts';
import { isServerProcess, readPostmaster } from './embedded-process.ts';

/** The server that is waited for. */
export interface AwaitedServer {
  readonly pid: number;
  readonly name: string;
  readonly pgData: string;
  readonly url: string;
}

/** How long to wait. The wait ends early when the process ends or `signal` is aborted. */
export interface ReadyWait {
  /** For a server that says it is starting: recovery after a crash may read some GiB. */
  readonly startingMs: number;
  /** For a server that says it is ready and does not answer. */
  readonly answerMs: number;
  readonly signal: AbortSignal;
}

const POLL_MS = 20;
const CONNECT_TIMEOUT_MS = 2000;
const INVALID_PASSWORD = '28P01';
const DATABASE_MISSING = '3D000';

/**
 * Waits until the server answers a query with our password, and makes the database when it is new.
 * @throws {EmbeddedDatabaseError} it ended, refused the password, or took too long.
 */
export async function waitUntilReady(server: AwaitedServer, wait: ReadyWait): Promise<void> {
  const start = Date.now();
  let readySince: number | null = null;
  let last = 'it does not say that it is ready';
  for (;;) {
    if (wait.signal.aborted) throw new EmbeddedDatabaseError('start', 'Puback is stopping');
    if (!(await isServerProcess(server.pid, server.name))) {
      throw new EmbeddedDatabaseError('start', 'the server ended');
    }
    const postmaster = await readPostmaster(server.pgData);
    if (postmaster?.pid === server.pid && postmaster.status === 'ready') {
      readySince ??= Date.now();
      const fault = await askServer(server.url);
      if (fault === null) return;
      last = fault;
    }
    const tookMs = Date.now() - start;
    const answerMs = readySince === null ? 0 : Date.now() - readySince;
    if (tookMs > wait.startingMs || answerMs > wait.answerMs) {
      throw new EmbeddedDatabaseError('start', `not ready after ${tookMs} ms: ${last}`);
    }
    await sleep(POLL_MS);
  }
}

/** @returns null when the server answers and has our database, otherwise the fault, to be tried again. */
async function askServer(url: string): Promise<string | null> {
  const { code, message } = await query(url, 'SELECT 1');
  if (code === INVALID_PASSWORD) {
    throw new EmbeddedDatabaseError(
      'start',
      'the server does not take the password of this folder',
    );
  }
  if (code !== DATABASE_MISSING) return message;
  const maintenance = new URL(url);
  maintenance.pathname = '/postgres';
  return (await query(maintenance.href, 'CREATE DATABASE puback')).message;
}

async function query(url: string, sql: string): Promise<{ code?: string; message: string | null }> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    query_timeout: CONNECT_TIMEOUT_MS * 5,
    application_name: 'puback launcher',
  });
  let lost: Error | null = null;
  client.on('error', (err) => (lost = err));
  try {
    await client.connect();
    await client.query(sql);
    return { message: null };
  } catch (err) {
    const { code } = err as { code?: string };
    return { ...(code && { code }), message: reasonOf(lost ?? err) };
  } finally {
    await client.end();
  }
}

import { randomBytes, randomInt } from 'node:crypto';
import { constants } from 'node:fs';
import { chown, mkdir, open, readdir, readFile, rename, rm, stat, unlink } from 'node:fs/promises';
import { createServer } from 'node:net';
import { totalmem } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { EmbeddedDatabaseError } from '../errors.ts';
import type { Binaries } from './embedded-binaries.ts';
import { openPrivateFile, replacePrivateFile, syncFolder } from './data-folder-files.ts';
import { dataFolderArgument } from './embedded-process.ts';
import { runTool, type ServerUser } from './embedded-tool.ts';

/** Below the ports that Linux and macOS give to outgoing connections and that Kubernetes maps. */
const PORT_MIN = 20_000;
const PORT_MAX = 30_000;
const PORT_TRIES = 20;
const PORT_WAIT_MS = 25;
const GIB = 1_073_741_824;
/**
 * Size of a file of the WAL. Whoever fills one makes the next, writes it full of zeros and syncs it, while
 * every other COMMIT waits: 70 ms of 16 MiB, the default. A new cluster makes each file so; an older one
 * takes old files again. docs/adr/0035.
 */
const WAL_SEGMENT_MIB = 2;

/** The folder of the cluster, PGDATA. */
export function clusterFolder(dataDir: string): string {
  return join(dataDir, 'postgres');
}

/** The file with the connection string of the embedded database. */
export function urlFile(dataDir: string): string {
  return join(dataDir, 'embedded-database.url');
}

/** The PostgreSQL version that made the cluster, for example `18`. */
export async function readMajorVersion(dataDir: string): Promise<string> {
  return (await readFile(join(clusterFolder(dataDir), 'PG_VERSION'), 'utf8')).trim();
}

/** @returns whether `initdb` ran to its end: the cluster gets its name only then. */
export async function hasCluster(dataDir: string): Promise<boolean> {
  return (await statOrNull(join(clusterFolder(dataDir), 'PG_VERSION'))) !== null;
}

/**
 * Who runs the server. Null: this process, which is not root. For root the owner of the cluster; for
 * a new one the owner of the data folder, or else the first of `puback`, `postgres`, `nobody`.
 * @throws {EmbeddedDatabaseError} the cluster belongs to root or to another user than this one.
 */
export async function chooseServerUser(dataDir: string): Promise<ServerUser | null> {
  const folder = clusterFolder(dataDir);
  const cluster = await statOrNull(folder);
  const ownUid = process.getuid?.() ?? 0;
  if (ownUid !== 0) {
    if (cluster === null || cluster.uid === ownUid) return null;
    const advice = 'start Puback as that user, or as root';
    throw new EmbeddedDatabaseError(
      'wrong owner',
      `${folder} belongs to user id ${cluster.uid}; ${advice}`,
    );
  }
  if (cluster?.uid === 0) {
    const advice = `chown -R postgres ${folder} (or another user) lets it start again`;
    throw new EmbeddedDatabaseError('wrong owner', `PostgreSQL does not run as root; ${advice}`);
  }
  const users = await readUsers();
  if (cluster) {
    const name = users.find((user) => user.uid === cluster.uid)?.name ?? String(cluster.uid);
    return { name, uid: cluster.uid, gid: cluster.gid };
  }
  const { uid } = await stat(dataDir);
  const owner = users.find((user) => user.uid === uid && uid !== 0);
  const named = ['puback', 'postgres', 'nobody'].map((name) => users.find((u) => u.name === name));
  const user = owner ?? named.find((candidate) => candidate !== undefined && candidate.uid !== 0);
  if (user) return user;
  throw new EmbeddedDatabaseError(
    'no user to run it',
    'PostgreSQL does not run as root; make a user "puback" or start Puback as an ordinary user',
  );
}

/**
 * Makes the cluster under another name and renames it when it is complete, so that a start that was
 * killed in between is simply repeated: UTF-8, C locale, checksums, scram-sha-256.
 * @throws {EmbeddedDatabaseError} `initdb` failed; the message ends with what it said.
 */
export async function makeCluster(
  dataDir: string,
  binaries: Binaries,
  user: ServerUser | null,
): Promise<void> {
  await removeUnfinished(dataDir);
  const { password } = new URL((await readUrl(dataDir)) ?? (await writeUrl(dataDir)));
  const unfinished = join(dataDir, `postgres.unfinished-${randomBytes(4).toString('hex')}`);
  await mkdir(unfinished, { mode: 0o700 });
  if (user) await chown(unfinished, user.uid, user.gid);
  const passwordFile = await openPasswordFile(dataDir, password, user);
  const parameters = [
    ...['-D', dataFolderArgument(unfinished), '--username=puback', '--encoding=UTF8'],
    ...['--locale=C', '--data-checksums', '--auth=scram-sha-256'],
    `--pwfile=${process.platform === 'linux' ? '/proc/self/fd/3' : '/dev/fd/3'}`,
    `--wal-segsize=${WAL_SEGMENT_MIB}`,
    ...Object.entries(tuning()).map(([key, value]) => `--set=${key}=${value}`),
  ];
  const options = { user, cwd: unfinished, file: passwordFile.fd };
  const result = await runTool(binaries.initdb, parameters, options);
  await passwordFile.close();
  if (result.status !== 0) throw initdbFailed(result.output);
  await rename(unfinished, clusterFolder(dataDir));
  await syncFolder(dataDir);
}

/**
 * The settings that the owner may change with ALTER SYSTEM; fixed ones are in `spawnServer`. For a
 * small machine with much ingest: few, large checkpoints, and a log without the rows of tenants.
 */
function tuning(): Record<string, string> {
  const memory = Math.min(totalmem(), process.constrainedMemory() || Infinity);
  return {
    shared_buffers: memory < 2 * GIB ? '128MB' : '256MB',
    max_connections: '50',
    max_wal_size: '2GB',
    min_wal_size: '256MB',
    wal_buffers: '16MB',
    wal_compression: 'pglz',
    checkpoint_timeout: '15min',
    // What a batch pushes out of the buffers goes to disk at once: a COMMIT waits for it 30 s later.
    backend_flush_after: '256kB',
    autovacuum: 'on',
    jit: 'off',
    timezone: 'UTC',
    log_timezone: 'UTC',
    log_checkpoints: 'off',
    log_min_error_statement: 'panic',
    log_error_verbosity: 'terse',
  };
}

/** The connection string, with the password; works in psql and Grafana. Null before the first start. */
export async function readUrl(dataDir: string): Promise<string | null> {
  try {
    return (await readFile(urlFile(dataDir), 'utf8')).trim();
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw err;
  }
}

/**
 * Keeps the port of the last start, so that what was set up with the connection string goes on
 * working, unless another program listens there for more than half a second.
 */
export async function settleUrl(dataDir: string): Promise<string> {
  const url = await readUrl(dataDir);
  if (url === null) {
    throw new EmbeddedDatabaseError(
      'its password is lost',
      `${urlFile(dataDir)} is missing; restore it from a backup`,
    );
  }
  // A server that has just ended may hold its port for a moment longer.
  for (let tries = 0; tries < PORT_TRIES; tries += 1) {
    if (await isPortFree(portOf(url))) return url;
    await sleep(PORT_WAIT_MS);
  }
  return writeUrl(dataDir, new URL(url).password);
}

/** The port in a connection string of {@link readUrl}. */
export function portOf(url: string): number {
  return Number(new URL(url).port);
}

async function writeUrl(dataDir: string, password?: string): Promise<string> {
  const secret = password ?? randomBytes(32).toString('base64url');
  const url = `postgres://puback:${secret}@127.0.0.1:${await findPort()}/puback`;
  await replacePrivateFile(urlFile(dataDir), `${url}\n`);
  return url;
}

async function findPort(): Promise<number> {
  for (let tries = 0; tries < PORT_TRIES; tries += 1) {
    const port = randomInt(PORT_MIN, PORT_MAX);
    if (await isPortFree(port)) return port;
  }
  throw new EmbeddedDatabaseError('no port', `none of ${PORT_TRIES} ports on 127.0.0.1 is free`);
}

function isPortFree(port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', (err: NodeJS.ErrnoException) =>
      err.code === 'EADDRINUSE' ? resolve(false) : reject(err),
    );
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/** An open file without a name: it is gone with the last process that has it, however that ends. */
async function openPasswordFile(dataDir: string, password: string, user: ServerUser | null) {
  const path = join(dataDir, `.password-${randomBytes(8).toString('hex')}`);
  const written = await openPrivateFile(path, constants.O_EXCL);
  try {
    const readable = await open(path, 'r');
    await unlink(path);
    await written.writeFile(`${password}\n`);
    if (user) await written.chown(user.uid, user.gid);
    return readable;
  } finally {
    await written.close();
  }
}

async function removeUnfinished(dataDir: string): Promise<void> {
  for (const name of await readdir(dataDir)) {
    if (!/^(postgres\.unfinished|\.password)-/.test(name)) continue;
    // An `initdb` of a killed program may still be writing there: it fails when its folder goes.
    const retry = { maxRetries: 10, retryDelay: 50 };
    await rm(join(dataDir, name), { recursive: true, force: true, ...retry });
  }
}

function initdbFailed(output: string): EmbeddedDatabaseError {
  const hint = output.includes('effective user ID')
    ? '; give the user id a name (a line in /etc/passwd), or set DATABASE_URL'
    : '';
  return new EmbeddedDatabaseError('initdb', `${output.trim().slice(-1000)}${hint}`);
}

async function readUsers(): Promise<ServerUser[]> {
  const lines = (await readFile('/etc/passwd', 'utf8')).split('\n');
  return lines.map((line) => {
    const [name = '', , uid, gid] = line.split(':');
    return { name, uid: Number(uid), gid: Number(gid) };
  });
}

async function statOrNull(path: string) {
  try {
    return await stat(path);
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw err;
  }
}

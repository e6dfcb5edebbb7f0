import { realpath } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { EmbeddedDatabaseError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { findBinaries, type Binaries } from './embedded-binaries.ts';
import * as cluster from './embedded-cluster.ts';
import { boundServerLog } from './embedded-log.ts';
import { clusterName } from './embedded-process.ts';
import { adoptServer, startServer, type RunningServer, type Site } from './embedded-server.ts';
import { SupervisedServer, type EmbeddedDatabase } from './embedded-supervisor.ts';

export type { EmbeddedDatabase } from './embedded-supervisor.ts';

/** Where the embedded database lives and who is told about it. */
export interface EmbeddedOptions {
  /** Existing folder that this program has locked (`lockDataFolder`). */
  readonly dataDir: string;
  readonly log: Logger;
}

/** Bound of the retries of a start, for what passes: a port in use, memory of a killed server. */
const START_RETRY_MS = 5000;
const START_RETRY_DELAY_MS = 300;

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

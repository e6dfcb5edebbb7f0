import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { pino } from 'pino';
import type { TestProject } from 'vitest/node';
import { startEmbedded } from '../../drizzle/embedded.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    /** Connection string of a server on which tests make databases of their own. */
    serverUrl: string;
  }
}

/** Each of two workers may run a program with its pools beside the pool of the test. */
const CONNECTIONS_MAX = 200;

/**
 * Finds the PostgreSQL server of a test run: the one of TEST_DATABASE_URL, or a new embedded one in a
 * folder of its own that goes with the run.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const given = process.env['TEST_DATABASE_URL'] ?? '';
  if (given !== '') {
    project.provide('serverUrl', given);
    return () => Promise.resolve();
  }
  const dataDir = await mkdtemp(join(tmpdir(), 'puback-test-'));
  const log = pino({ level: 'warn' });
  const small = await startEmbedded({ dataDir, log });
  const client = new pg.Client({ connectionString: small.url });
  await client.connect();
  await client.query(`ALTER SYSTEM SET max_connections = ${CONNECTIONS_MAX}`);
  await client.end();
  await small.stop();
  const server = await startEmbedded({ dataDir, log });
  project.provide('serverUrl', server.url);
  return async () => {
    await server.stop();
    await rm(dataDir, { recursive: true, force: true });
  };
}

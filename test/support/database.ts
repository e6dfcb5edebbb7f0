import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { pino } from 'pino';
import { inject } from 'vitest';
import { openDatabase, type Database } from '../../drizzle/database.ts';

/** A migrated database for one test file. */
export interface TestDatabase {
  readonly url: string;
  readonly database: Database;
  /** Closes and drops it, whoever is still connected. */
  readonly drop: () => Promise<void>;
}

/** A role that may log in, for one test. */
export interface TestLogin {
  readonly name: string;
  /** The connection string of a database, for this role. */
  readonly urlOf: (url: string) => string;
  /** Drops it, with the role of tenants made for it. Its databases must be gone by then. */
  readonly drop: () => Promise<void>;
}

/** A database that nothing has been done with yet. */
export interface EmptyDatabase {
  readonly url: string;
  /** Drops it, whoever is still connected. */
  readonly drop: () => Promise<void>;
}

/** Makes an empty database on the server of this run. */
export async function createEmptyDatabase(): Promise<EmptyDatabase> {
  const serverUrl = inject('serverUrl');
  const name = `puback_test_${randomBytes(6).toString('hex')}`;
  await onServer(serverUrl, `CREATE DATABASE ${name}`);
  return {
    url: withDatabase(serverUrl, name),
    drop: () => onServer(serverUrl, `DROP DATABASE ${name} WITH (FORCE)`),
  };
}

/** Makes an empty database on the server of this run, migrates and opens it. */
export async function createTestDatabase(): Promise<TestDatabase> {
  const { url, drop } = await createEmptyDatabase();
  const database = await openDatabase({
    url,
    connectionsMax: 8,
    timeoutMs: 10_000,
    log: pino({ level: 'silent' }),
  });
  return {
    url,
    database,
    async drop() {
      await database.close();
      await drop();
    },
  };
}

/** Makes a role on the server of this run. @param attributes as `CREATE ROLE` takes them. */
export async function createLogin(attributes = ''): Promise<TestLogin> {
  const serverUrl = inject('serverUrl');
  const name = `puback_test_${randomBytes(6).toString('hex')}`;
  const password = randomBytes(12).toString('hex');
  await onServer(serverUrl, `CREATE ROLE ${name} LOGIN PASSWORD '${password}' ${attributes}`);
  return {
    name,
    urlOf: (url) => url.replace(/^(postgres(?:ql)?:\/\/)(?:[^/@]*@)?/, `$1${name}:${password}@`),
    drop: () => onServer(serverUrl, `DROP ROLE IF EXISTS puback_tenant_${name}, ${name}`),
  };
}

/** Runs a statement on the server of this run, as who owns it. */
export function onTestServer(statement: string): Promise<void> {
  return onServer(inject('serverUrl'), statement);
}

function withDatabase(serverUrl: string, name: string): string {
  // Not new URL(): a socket's address has no host, which it would not take.
  return serverUrl.replace(/^(postgres(?:ql)?:\/\/[^/]*\/)[^?]*/, `$1${name}`);
}

async function onServer(serverUrl: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: serverUrl });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}

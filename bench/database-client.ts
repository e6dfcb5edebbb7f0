import pg from 'pg';
import { readUrl } from '../drizzle/embedded-cluster.ts';
import { ToolFailedError } from '../errors.ts';

/**
 * The connection string of the embedded database of a data folder.
 * @throws {ToolFailedError} when no program has set one up there.
 */
export async function findEmbeddedUrl(dataDir: string): Promise<string> {
  const url = await readUrl(dataDir);
  if (url === null) throw new ToolFailedError(`${dataDir} has no embedded database`);
  return url;
}

/**
 * What DATABASE_URL says; empty when it is not set.
 * @throws {ToolFailedError} when it is not the URL of a database.
 */
export function givenDatabaseUrl(): string {
  const given = process.env['DATABASE_URL']?.trim() ?? '';
  if (given === '' || /^postgres(ql)?:\/\//.test(given)) return given;
  throw new ToolFailedError('DATABASE_URL must start with postgres:// or postgresql://');
}

/** The database that a program on this data folder uses: DATABASE_URL, or the embedded one. */
export async function findDatabaseUrl(dataDir: string): Promise<string> {
  const given = givenDatabaseUrl();
  return given === '' ? findEmbeddedUrl(dataDir) : given;
}

/** Runs a task on a connection of its own. When the connection is lost the query under way rejects. */
export async function withDatabase<T>(
  url: string,
  task: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  // The query under way, or the next one, tells it; without a listener it would end the process.
  client.on('error', () => undefined);
  await client.connect();
  try {
    return await task(client);
  } finally {
    await client.end();
  }
}

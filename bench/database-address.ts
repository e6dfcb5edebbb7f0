import { ToolFailedError } from '../errors.ts';

/**
 * The connection string of the database that a program on this data folder uses: DATABASE_URL, or the
 * embedded one while it runs.
 * @throws {ToolFailedError} when the folder has no running database.
 */
export async function findDatabaseUrl(dataDir: string): Promise<string> {
  const given = process.env['DATABASE_URL'];
  if (given !== undefined && given !== '') return given;
  throw new ToolFailedError(`no database runs in ${dataDir}`);
}

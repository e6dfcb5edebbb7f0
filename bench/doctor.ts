import pg from 'pg';
import { loadEnvFile } from '../config.ts';
import { diagnoseDatabase } from '../drizzle/doctor/doctor.ts';
import { ToolFailedError, reasonOf } from '../errors.ts';
import { runTool } from './command-line.ts';
import { findDatabaseUrl, withDatabase } from './database-client.ts';

const HELP = `npm run db:doctor [-- --url URL]

Looks at the database of this Puback, running or not as long as the database runs, and tells what is wrong
and what to do. Changes nothing.

  --url URL   another database; otherwise DATABASE_URL, or the embedded one of DATA_DIR

Exit status: 0 nothing wrong, 1 problems found, 2 could not look.
`;

await runTool(HELP, { url: { type: 'string' } }, async ({ url: given }) => {
  loadEnvFile();
  const dataDir = process.env['DATA_DIR']?.trim() || './data';
  const url = typeof given === 'string' ? given : await findDatabaseUrl(dataDir);
  const { text, problemCount } = await withDatabase(url, diagnoseDatabase).catch(
    (error: unknown) => {
      throw new ToolFailedError(`the database cannot be looked at: ${hintFor(error)}`, {
        cause: error,
      });
    },
  );
  process.stdout.write(text);
  return problemCount === 0 ? 0 : 1;
});

function hintFor(error: unknown): string {
  const isEmpty = error instanceof pg.DatabaseError && error.code === '42P01';
  if (isEmpty) return 'it has no tables of Puback; start Puback on it first';
  return `${reasonOf(error)}; the embedded one runs only while Puback runs`;
}

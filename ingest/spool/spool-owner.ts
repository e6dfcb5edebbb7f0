import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Pool } from 'pg';
import { FileUnusableError } from '../../errors.ts';

const FILE = 'database';

/**
 * Sees to it that what waits in a spool goes to the database that its devices are in: messages name them
 * by number. A spool with nothing in it goes over to the database that is there.
 * @throws {FileUnusableError} when messages of another database wait; they stay where they are.
 */
export async function claimSpool(
  folder: string,
  pool: Pool,
  pendingMessages: number,
): Promise<void> {
  const owner = await findIdentity(pool);
  if (owner === null) return;
  const path = join(folder, FILE);
  const known = await readFile(path, 'utf8').catch((err: NodeJS.ErrnoException) => {
    if (err.code === 'ENOENT') return null;
    throw new FileUnusableError('the spool', path, err);
  });
  if (known === owner) return;
  if (known !== null && pendingMessages > 0) {
    const reason =
      `${pendingMessages} messages wait in it for another database; ` +
      'start with that DATABASE_URL until they are stored, or move the folder away';
    throw new FileUnusableError('the spool', folder, new Error(reason));
  }
  await writeFile(path, owner, { mode: 0o600 });
}

/** What stays the same in a database however it is reached: its first organization. Null before there is one. */
async function findIdentity(pool: Pool): Promise<string | null> {
  const { rows } = await pool.query<{ identity: string }>(
    `SELECT slug || ' ' || to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') AS identity
     FROM organization ORDER BY organization_id LIMIT 1`,
  );
  return rows[0]?.identity ?? null;
}

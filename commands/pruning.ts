import type { Database } from '../drizzle/database.ts';
import { guardStore } from '../drizzle/sqlstate.ts';

const DELETE_ROWS_MAX = 1000;
const DELETES_MAX = 100;

/**
 * Deletes commands that ended longer ago than `ageMaxMs`, with their steps, in small statements; what is
 * left after a hundred of them waits for the next call. @returns how many. @throws {StoreUnavailableError}
 */
export async function pruneCommands(
  { pool }: Pick<Database, 'pool'>,
  ageMaxMs: number,
  nowMs: number,
): Promise<number> {
  let deleted = 0;
  for (let statements = 0; statements < DELETES_MAX; statements += 1) {
    const { rowCount } = await guardStore(
      pool.query(
        `DELETE FROM command WHERE command_id IN (
           SELECT command_id FROM command WHERE ended_at < $1 ORDER BY ended_at LIMIT $2)`,
        [new Date(nowMs - ageMaxMs), DELETE_ROWS_MAX],
      ),
    );
    deleted += rowCount ?? 0;
    if ((rowCount ?? 0) < DELETE_ROWS_MAX) break;
  }
  return deleted;
}

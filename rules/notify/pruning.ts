import { guardStore } from '../../drizzle/sqlstate.ts';
import type { TenantDatabase } from '../../drizzle/transaction.ts';
import { firstIdAt } from './record.ts';

const DELETE_ROWS_MAX = 5000;
const DELETES_MAX = 100;

/**
 * Deletes notifications that are older than `historyMaxMs`, but not what waits, in small statements; what
 * is left after a hundred of them waits for the next call. @returns how many. @throws {StoreUnavailableError}
 */
export async function pruneNotifications(
  { pool }: Pick<TenantDatabase, 'pool'>,
  historyMaxMs: number,
  nowMs: number,
): Promise<number> {
  let deleted = 0;
  for (let statements = 0; statements < DELETES_MAX; statements += 1) {
    const { rowCount } = await guardStore(
      pool.query(
        `DELETE FROM notification WHERE notification_id IN (
           SELECT notification_id FROM notification
           WHERE notification_id < $1 AND state <> 'waiting' LIMIT $2)`,
        [firstIdAt(nowMs - historyMaxMs), DELETE_ROWS_MAX],
      ),
    );
    deleted += rowCount ?? 0;
    if ((rowCount ?? 0) < DELETE_ROWS_MAX) break;
  }
  return deleted;
}

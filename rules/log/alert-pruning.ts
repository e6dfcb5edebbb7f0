import type pg from 'pg';
import { inTransaction } from '../../drizzle/transaction.ts';

/** Alerts that one transaction deletes, so that it stays far below the statement timeout. */
const DELETE_ALERTS_MAX = 500;
/** Transactions of one call; what is left waits for the next call. */
const DELETES_MAX = 100;

/**
 * Deletes alerts that ended longer ago than `ageMaxMs`, with their transitions, notes and the links to
 * notifications, and what was written of devices while they were deleted. In small transactions, oldest
 * first. Open alerts stay. To be called every hour or so. @returns how many were deleted.
 * @throws {StoreUnavailableError}
 */
export async function pruneAlerts(pool: pg.Pool, ageMaxMs: number, nowMs: number): Promise<number> {
  // The ids begin with the time at which alerts became active, which is before that of their end.
  const old = await deleteAll(
    pool,
    `SELECT alert_id FROM alert
     WHERE alert_id < $1::uuid AND changed_at < to_timestamp($2::float8 / 1000.0)
       AND (state IN ('resolved', 'inactive') OR is_historical)
     ORDER BY alert_id LIMIT ${DELETE_ALERTS_MAX}`,
    [firstIdOf(nowMs - ageMaxMs), nowMs - ageMaxMs],
  );
  const orphans = await deleteAll(
    pool,
    `SELECT alert_id FROM alert
     WHERE NOT EXISTS (SELECT FROM device WHERE device.device_id = alert.device_id)
     LIMIT ${DELETE_ALERTS_MAX}`,
    [],
  );
  return old + orphans;
}

async function deleteAll(pool: pg.Pool, select: string, values: unknown[]): Promise<number> {
  let deleted = 0;
  for (let turn = 0; turn < DELETES_MAX; turn += 1) {
    const count = await inTransaction(pool, async ({ client }) => {
      const { rows } = await client.query<{ alert_id: string }>(`${select} FOR UPDATE`, values);
      const ids = rows.map((row) => row.alert_id);
      for (const table of ['notification_alert', 'alert_transition', 'alert']) {
        await client.query(`DELETE FROM ${table} WHERE alert_id = ANY($1)`, [ids]);
      }
      return ids.length;
    });
    deleted += count;
    if (count < DELETE_ALERTS_MAX) break;
  }
  return deleted;
}

/** The least id of an alert that became active at a time; see `alertIdOf`. */
function firstIdOf(ms: number): string {
  const hex = Math.max(Math.floor(ms), 0).toString(16).padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-0000-0000-000000000000`;
}

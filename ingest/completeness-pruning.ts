import type pg from 'pg';
import { guardStore } from '../drizzle/sqlstate.ts';

/** Rows that one call deletes; what is left waits for the next. */
const DELETE_ROWS_MAX = 5000;

/**
 * Forgets the numbers of all but the newest boots of each device. To be called every minute or so.
 * @returns how many boots were forgotten. @throws {StoreUnavailableError}
 */
export async function pruneBoots(pool: pg.Pool, bootsPerDeviceMax: number): Promise<number> {
  const { rowCount } = await guardStore(
    pool.query(
      `DELETE FROM device_sequence USING (
         SELECT device_id, boot FROM (
           SELECT device_id, boot,
                  row_number() OVER (PARTITION BY device_id ORDER BY last_at DESC, boot DESC) AS place
           FROM device_sequence
           WHERE device_id IN (
             SELECT device_id FROM device_sequence GROUP BY device_id HAVING count(*) > $1)
         ) AS placed WHERE place > $1 LIMIT ${DELETE_ROWS_MAX}
       ) AS old
       WHERE device_sequence.device_id = old.device_id AND device_sequence.boot = old.boot`,
      [bootsPerDeviceMax],
    ),
  );
  return rowCount ?? 0;
}

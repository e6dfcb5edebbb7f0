import type pg from 'pg';
import { guardStore } from '../drizzle/sqlstate.ts';

/** How much of `device_event` is kept. */
export interface DeviceEventBounds {
  readonly ageMaxMs: number;
  readonly rowsPerDeviceMax: number;
  /** Rows that no device stands behind, of all addresses together. */
  readonly unknownRowsMax: number;
}

/** Rows that one statement deletes, so that it stays far below the statement timeout. */
const DELETE_ROWS_MAX = 5000;
/** Statements for one bound in one call; what is left waits for the next call. */
const DELETES_MAX = 100;
/** Devices that one statement looks at: it walks over all rows of each. */
const DEVICES_AT_ONCE = 200;

/**
 * Deletes rows that are too old, and those of certain devices that are too many, oldest first, in
 * small transactions.
 * @param deviceIds null among them stands for the rows without a device.
 * @returns how many were deleted. @throws {StoreUnavailableError}
 */
export async function pruneDeviceEvents(
  pool: pg.Pool,
  { ageMaxMs, rowsPerDeviceMax, unknownRowsMax }: DeviceEventBounds,
  deviceIds: readonly (number | null)[],
): Promise<number> {
  let deleted = await deleteInSteps(
    pool,
    `SELECT device_event_id FROM device_event
     WHERE occurred_at < now() - $1 * interval '1 millisecond' ORDER BY occurred_at LIMIT $2`,
    [ageMaxMs],
  );
  // Both in the order of the index (device_id, device_event_id).
  if (deviceIds.includes(null)) {
    deleted += await deleteInSteps(
      pool,
      `SELECT device_event_id FROM device_event
       WHERE device_id IS NULL ORDER BY device_event_id DESC OFFSET $1 LIMIT $2`,
      [unknownRowsMax],
    );
  }
  const known = deviceIds.filter((deviceId) => deviceId !== null);
  for (let at = 0; at < known.length; at += DEVICES_AT_ONCE) {
    deleted += await deleteInSteps(
      pool,
      `SELECT device_event_id FROM unnest($1::int4[]) AS asked (device_id) CROSS JOIN LATERAL (
         SELECT device_event_id FROM device_event WHERE device_event.device_id = asked.device_id
         ORDER BY device_event_id DESC OFFSET $2) AS surplus LIMIT $3`,
      [known.slice(at, at + DEVICES_AT_ONCE), rowsPerDeviceMax],
    );
  }
  return deleted;
}

async function deleteInSteps(
  pool: pg.Pool,
  select: string,
  values: readonly unknown[],
): Promise<number> {
  let deleted = 0;
  for (let step = 0; step < DELETES_MAX; step += 1) {
    const { rowCount } = await guardStore(
      pool.query(`DELETE FROM device_event WHERE device_event_id IN (${select})`, [
        ...values,
        DELETE_ROWS_MAX,
      ]),
    );
    deleted += rowCount ?? 0;
    if ((rowCount ?? 0) < DELETE_ROWS_MAX) break;
  }
  return deleted;
}

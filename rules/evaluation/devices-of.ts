import type { Pool } from 'pg';
import { guardStore } from '../../drizzle/sqlstate.ts';

/** Ids of all devices of some organizations. @throws {StoreUnavailableError} */
export async function findDevicesOf(
  pool: Pool,
  organizationIds: readonly number[],
): Promise<number[]> {
  const { rows } = await guardStore(
    pool.query<{ device_id: number }>(
      'SELECT device_id FROM device WHERE organization_id = ANY($1::int4[]) ORDER BY device_id',
      [organizationIds],
    ),
  );
  return rows.map((row) => row.device_id);
}

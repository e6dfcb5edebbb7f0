import type { Database } from '../../drizzle/database.ts';

/** Finds or makes a metric. @returns its id. */
export async function ensureMetric(
  { pool }: Database,
  organizationId: number,
  name: string,
  kind: 'number' | 'bool' | 'text' = 'number',
): Promise<number> {
  const { rows } = await pool.query<{ metric_id: number }>(
    `INSERT INTO metric (organization_id, name, kind) VALUES ($1, $2, $3)
     ON CONFLICT (organization_id, name) DO UPDATE SET name = excluded.name RETURNING metric_id`,
    [organizationId, name, kind],
  );
  const id = rows[0]?.metric_id;
  if (id === undefined) throw new Error('no metric');
  return id;
}

/** Makes the partitions of the days from one date to another, where there are partitions. */
export async function ensureDays(database: Database, from: string, to: string): Promise<void> {
  if (database.capabilities.hypertables) return;
  await database.pool.query(
    `SELECT reading_partition_ensure(day::date)
     FROM generate_series($1::date, $2::date, '1 day') AS day`,
    [from, to],
  );
}

/** Stores one reading, as the writer does: in `reading` and as the latest. */
export async function insertReading(
  { pool }: Database,
  row: {
    deviceId: number;
    metricId: number;
    time: string;
    value?: number;
    text?: string;
    quality?: number;
  },
): Promise<void> {
  const { deviceId, metricId, time, value = null, text = null, quality = 0 } = row;
  await pool.query(
    `WITH stored AS (
       INSERT INTO reading VALUES ($3::timestamptz, $1, $2, $4, $5, '2026-11-21 12:00Z', $6)
     )
     INSERT INTO device_latest VALUES ($1, $2, $3::timestamptz, $4, $5, '2026-11-21 12:00Z', $6)
     ON CONFLICT (device_id, metric_id) DO UPDATE
     SET time = excluded.time, value = excluded.value, text_value = excluded.text_value
     WHERE excluded.time >= device_latest.time`,
    [deviceId, metricId, time, value, text, quality],
  );
}

import type pg from 'pg';
import type { Page } from '../drizzle/page.ts';
import { guardStore } from '../drizzle/sqlstate.ts';
import { inOrganization, type TenantDatabase } from '../drizzle/transaction.ts';

/** A message that was acknowledged and could not be stored as readings. */
export interface QuarantinedMessage {
  readonly quarantineId: string;
  readonly deviceId: number;
  /** Slug; null when the device was deleted since. */
  readonly device: string | null;
  readonly receivedAt: Date;
  readonly topic: string;
  /** Why, as the device was told: a code of the wire contract. */
  readonly code: string;
  readonly detail: string;
  readonly payload: Buffer;
}

/** A question for quarantine. */
export interface QuarantineQuery {
  readonly organizationId: number;
  readonly deviceId: number | null;
  readonly code: string | null;
  readonly limit: number;
  /** Id of the last message of the page before. */
  readonly after: string | null;
}

/** How much quarantine keeps. */
export interface QuarantineBounds {
  readonly ageMaxMs: number;
  readonly rowsPerDeviceMax: number;
}

/** The messages that firmware authors have to look at. */
export interface Quarantine {
  /**
   * One page, newest first. It ends before `limit` when its payloads would be more than 8 MiB, and
   * says so like any page with more behind it. @throws {StoreUnavailableError}
   */
  list(query: QuarantineQuery): Promise<Page<QuarantinedMessage>>;
  /**
   * Deletes what is too old and what is too much for one device, oldest first, in small
   * transactions. To be called every minute or so. @returns how many were deleted. @throws
   * {StoreUnavailableError}
   */
  prune(bounds: QuarantineBounds): Promise<number>;
}

const PAGE_PAYLOAD_BYTES_MAX = 8_388_608;
/** Rows that one statement deletes, so that it stays far below the statement timeout. */
const DELETE_ROWS_MAX = 5000;
/** Statements of one call; what is left waits for the next call. */
const DELETES_MAX = 100;

/** Makes the reading side of quarantine; the writer puts the messages in. */
export function createQuarantine(database: TenantDatabase): Quarantine {
  const { pool } = database;
  return {
    list: (query) => listPage(database, query),
    async prune({ ageMaxMs, rowsPerDeviceMax }) {
      const tooOld = await deleteInSteps(
        pool,
        `SELECT quarantine_id FROM quarantine
         WHERE received_at < now() - $1 * interval '1 millisecond'
         ORDER BY received_at LIMIT $2`,
        ageMaxMs,
      );
      // In the order of the index (device_id, quarantine_id), so that nothing is sorted.
      const tooMany = await deleteInSteps(
        pool,
        `SELECT quarantine_id FROM (
           SELECT quarantine_id, count(*) OVER (PARTITION BY device_id) AS total,
                  row_number() OVER (PARTITION BY device_id ORDER BY quarantine_id) AS place
           FROM quarantine) AS placed
         WHERE place <= total - $1 LIMIT $2`,
        rowsPerDeviceMax,
      );
      return tooOld + tooMany;
    },
  };
}

interface QuarantineRow {
  quarantine_id: string;
  device_id: number;
  device: string | null;
  received_at: Date;
  topic: string;
  code: string;
  detail: string;
  payload: Buffer;
  found: number;
}

/** The lengths of payloads are summed up before any payload is read. */
async function listPage(
  database: TenantDatabase,
  { organizationId, deviceId, code, limit, after }: QuarantineQuery,
): Promise<Page<QuarantinedMessage>> {
  const values: unknown[] = [organizationId, limit + 1, PAGE_PAYLOAD_BYTES_MAX];
  const give = (value: unknown): string => `$${values.push(value)}`;
  const filters: string[] = [];
  if (deviceId !== null) filters.push(`AND device_id = ${give(deviceId)}`);
  if (code !== null) filters.push(`AND code = ${give(code)}`);
  if (after !== null) filters.push(`AND quarantine_id < ${give(after)}`);
  const { rows } = await inOrganization(database, organizationId, ({ client }) =>
    client.query<QuarantineRow>(
      `SELECT page.quarantine_id, page.device_id, device.slug AS device, page.received_at,
              page.topic, page.code, page.detail, page.payload, page.found
       FROM (
         SELECT *, (count(*) OVER ())::int4 AS found,
                sum(octet_length(payload)) OVER (ORDER BY quarantine_id DESC) AS bytes,
                row_number() OVER (ORDER BY quarantine_id DESC) AS place
         FROM (
           SELECT * FROM quarantine WHERE organization_id = $1 ${filters.join(' ')}
           ORDER BY quarantine_id DESC LIMIT $2
         ) AS asked
       ) AS page
       LEFT JOIN device USING (device_id)
       WHERE page.place = 1 OR (page.place < $2 AND page.bytes <= $3)
       ORDER BY page.quarantine_id DESC`,
      values,
    ),
  );
  return { rows: rows.map(messageOf), hasMore: (rows[0]?.found ?? 0) > rows.length };
}

function messageOf(row: QuarantineRow): QuarantinedMessage {
  return {
    quarantineId: row.quarantine_id,
    deviceId: row.device_id,
    device: row.device,
    receivedAt: row.received_at,
    topic: row.topic,
    code: row.code,
    detail: row.detail,
    payload: row.payload,
  };
}

async function deleteInSteps(pool: pg.Pool, select: string, bound: number): Promise<number> {
  let deleted = 0;
  for (let step = 0; step < DELETES_MAX; step += 1) {
    const { rowCount } = await guardStore(
      pool.query(`DELETE FROM quarantine WHERE quarantine_id IN (${select})`, [
        bound,
        DELETE_ROWS_MAX,
      ]),
    );
    deleted += rowCount ?? 0;
    if ((rowCount ?? 0) < DELETE_ROWS_MAX) break;
  }
  return deleted;
}

import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { DAY_MS } from './levels.ts';

/** Longest wait for a lock, in ms: who comes behind us waits as long, and writers must not notice. */
const LOCK_MS_MAX = 300;
const ATTEMPTS_MAX = 5;
const RETRY_MS = 500;

/** A partition or chunk: rows of `fromMs ≤ time < toMs`, milliseconds since 1970. */
export interface Partition {
  /** What a statement reads its rows from: a partition itself; of chunks their hypertable. */
  readonly table: string;
  readonly fromMs: number;
  readonly toMs: number;
}

/** A natively partitioned table, as whoever drops parts of it sees it. */
export interface PartitionedTable {
  readonly name: string;
  readonly partitionDays: number;
}

/** The partitions of a natively partitioned table that are named by their first day, oldest first. */
export async function listPartitions(
  client: pg.Client,
  { name, partitionDays }: PartitionedTable,
): Promise<(Partition & { readonly isDetaching: boolean; readonly isAttached: boolean })[]> {
  const { rows } = await client.query<{
    relname: string;
    first_day: string;
    is_detaching: boolean | null;
  }>(
    `SELECT relname, right(relname, 8) AS first_day, inhdetachpending AS is_detaching
     FROM pg_class LEFT JOIN pg_inherits ON inhrelid = pg_class.oid AND inhparent = $1::text::regclass
     WHERE relkind = 'r' AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = $1::text::regclass)
       AND relname ~ ('^' || $1::text || '_\\d{8}$')
     ORDER BY first_day`,
    [name],
  );
  return rows.map(({ relname, first_day, is_detaching }) => {
    const isoDay = `${first_day.slice(0, 4)}-${first_day.slice(4, 6)}-${first_day.slice(6)}`;
    const fromMs = Date.parse(`${isoDay}T00:00:00Z`);
    return {
      table: pg.escapeIdentifier(relname),
      fromMs,
      toMs: fromMs + partitionDays * DAY_MS,
      isDetaching: is_detaching === true,
      isAttached: is_detaching !== null,
    };
  });
}

/**
 * Drops the partitions that end by a time, one after the other. Detached concurrently, which lets
 * readers and writers of the table go on; no lock is waited for longer than 300 ms. What a killed
 * program left half detached, or detached, is finished.
 * @returns how many were dropped, and whether somebody held on to the next one.
 */
export async function dropPartitions(
  client: pg.Client,
  parent: PartitionedTable,
  endMs: number,
): Promise<{ dropped: number; busy: number }> {
  let dropped = 0;
  for (const { table, toMs } of await listPartitions(client, parent)) {
    if (toMs > endMs) break;
    const isGone = await withoutStalling(client, () => dropPartition(client, parent, table));
    // A table has one partition at most that is half detached.
    if (!isGone) return { dropped, busy: 1 };
    dropped += 1;
  }
  return { dropped, busy: 0 };
}

async function dropPartition(
  client: pg.Client,
  parent: PartitionedTable,
  table: string,
): Promise<void> {
  const now = (await listPartitions(client, parent)).find((each) => each.table === table);
  if (now?.isAttached === true) {
    const how = now.isDetaching ? 'FINALIZE' : 'CONCURRENTLY';
    await client.query(`ALTER TABLE ${parent.name} DETACH PARTITION ${table} ${how}`);
  }
  await client.query(`DROP TABLE ${table}`);
}

/** The same for chunks of a hypertable or of a continuous aggregate. */
export async function dropChunks(
  client: pg.Client,
  relation: string,
  endMs: number,
): Promise<{ dropped: number; busy: number }> {
  if (endMs === -Infinity) return { dropped: 0, busy: 0 };
  let dropped = 0;
  const isDone = await withoutStalling(client, async () => {
    const { rowCount } = await client.query(
      `SELECT drop_chunks('${relation}', older_than => '${new Date(endMs).toISOString()}'::timestamptz)`,
    );
    dropped += rowCount ?? 0;
  });
  return { dropped, busy: isDone ? 0 : 1 };
}

/** Runs statements that lock tables; gives up when somebody holds on to one. @returns whether it worked. */
async function withoutStalling(client: pg.Client, work: () => Promise<void>): Promise<boolean> {
  await client.query(`SET lock_timeout = ${LOCK_MS_MAX}`);
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt += 1) {
    const isDone = await work().then(() => true, passOverLockTimeout);
    if (isDone) {
      await client.query('RESET lock_timeout');
      return true;
    }
    await delay(RETRY_MS);
  }
  await client.query('RESET lock_timeout');
  return false;
}

/** Any other error ends the connection, and its settings with it. */
function passOverLockTimeout(error: unknown): false {
  const isLockTimeout =
    error instanceof pg.DatabaseError && (error.code === '55P03' || error.code === '40P01');
  if (!isLockTimeout) throw error;
  return false;
}

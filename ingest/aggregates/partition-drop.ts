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

/** A partitioned table, as whoever drops parts of it sees it. */
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
 * program left half detached is finished.
 * @returns how many were dropped, and how many could not be because somebody held them.
 */
export async function dropPartitions(
  client: pg.Client,
  table: PartitionedTable,
  endMs: number,
): Promise<{ dropped: number; busy: number }> {
  let dropped = 0;
  let busy = 0;
  for (const partition of await listPartitions(client, table)) {
    if (partition.toMs > endMs) break;
    const detach = `ALTER TABLE ${table.name} DETACH PARTITION ${partition.table}`;
    const isGone = await withoutStalling(client, async () => {
      if (partition.isAttached) {
        const [again] = (await listPartitions(client, table)).filter(
          (each) => each.table === partition.table,
        );
        if (again?.isAttached === true) {
          await client.query(`${detach} ${again.isDetaching ? 'FINALIZE' : 'CONCURRENTLY'}`);
        }
      }
      await client.query(`DROP TABLE ${partition.table}`);
    });
    if (isGone) dropped += 1;
    else busy += 1;
  }
  return { dropped, busy };
}

/** The same for chunks of a hypertable or of a continuous aggregate. */
export async function dropChunks(
  client: pg.Client,
  relation: string,
  endMs: number,
): Promise<{ dropped: number; busy: number }> {
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
  try {
    for (let attempt = 1; ; attempt += 1) {
      try {
        await work();
        return true;
      } catch (error) {
        if (!isLockTimeout(error)) throw error;
        if (attempt === ATTEMPTS_MAX) return false;
        await delay(RETRY_MS);
      }
    }
  } finally {
    // A lost connection has no settings either.
    await client.query('RESET lock_timeout').catch(() => undefined);
  }
}

function isLockTimeout(error: unknown): boolean {
  return error instanceof pg.DatabaseError && (error.code === '55P03' || error.code === '40P01');
}

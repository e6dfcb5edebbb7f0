import type pg from 'pg';
import { RETENTION_CLASSES, type RetentionBounds } from '../../drizzle/retention.ts';
import type { RetentionClass } from '../../drizzle/retention.ts';
import { LEVELS } from './levels.ts';
import { cutOf, readRetentions, shorterOnes, type Retentions } from './organization-retention.ts';
import { dropChunks, dropPartitions, listPartitions, type Partition } from './partition-drop.ts';
import { beginDeletion, type DeletionCuts } from './raw-deletion.ts';
import { forgetOldSkips } from './skip.ts';
import { findNow, isoTime, readWatermarks, type Watermarks } from './watermarks.ts';

/** Rows that one statement deletes. */
const DELETE_ROWS_MAX = 5000;
/** Devices that one statement looks at, and the same for chunks, which are decompressed for it. */
const DEVICES_AT_ONCE = 500;
const CHUNK_DEVICES_AT_ONCE = 50;
/** Time for deleting in one run, in ms. */
const RUN_MS_MAX = 60_000;

/** What {@link runRetention} needs. */
export interface RetentionDeps {
  /** Whether `reading` has chunks, and whether the rollups do. */
  readonly hypertables: boolean;
  readonly continuousAggregates: boolean;
  readonly bounds: RetentionBounds;
  readonly clock: () => number;
  readonly isStopping: () => boolean;
}

/** What a run has done. */
export interface Retained {
  readonly droppedPartitions: number;
  /** Of them those of `reading`. */
  readonly droppedRaw: number;
  readonly deletedRows: number;
  /** Partitions that somebody held on to; they are tried again. */
  readonly busy: number;
  /** More is to be deleted. */
  readonly isBehind: boolean;
}

/** Where the rows of a class are. */
interface ClassTable {
  readonly name: RetentionClass;
  /** The table, or the relation that `drop_chunks` takes. */
  readonly relation: string;
  readonly timeColumn: 'time' | 'bucket';
  readonly partitionDays: number;
  readonly hasChunks: boolean;
}

/**
 * Drops what no organization keeps any more, partition by partition, and deletes the rows of those that
 * keep less than the others, in steps. May be stopped anywhere; the next run goes on.
 */
export async function runRetention(client: pg.Client, deps: RetentionDeps): Promise<Retained> {
  const nowMs = await findNow(client, deps.clock);
  const retentions = await readRetentions(client, deps.bounds);
  const watermarks = await readWatermarks(client);
  const until = performance.now() + RUN_MS_MAX;
  const begun = await beginRun(client, deps, { nowMs, retentions, watermarks });
  let droppedPartitions = 0;
  let droppedRaw = 0;
  let deletedRows = 0;
  let busy = 0;
  for (const table of tablesOf(deps)) {
    const usedMs = usedUpTo(table.name, watermarks);
    const cut = (days: number, begunMs: number): number => {
      const cutMs = Math.min(cutOf(nowMs, days), usedMs, begunMs);
      // Raw readings that came since, of where there were none, may be noted: the next run sees it.
      return table.name === 'raw' && begun.oldestMs >= cutMs ? -Infinity : cutMs;
    };
    const endMs = cut(retentions.longest[table.name], begun.allMs);
    const outcome = table.hasChunks
      ? await dropChunks(client, table.relation, endMs)
      : await dropPartitions(client, { ...table, name: table.relation }, endMs);
    droppedPartitions += outcome.dropped;
    if (table.name === 'raw') droppedRaw += outcome.dropped;
    busy += outcome.busy;
    for (const { organizationId, days } of shorterOnes(retentions, table.name)) {
      const deletion = { organizationId, cutMs: cut(days, begun.of(organizationId)), until };
      deletedRows += await deleteOf(client, table, deletion, deps);
    }
  }
  await forgetOldSkips(client, cutOf(nowMs, retentions.longest.raw));
  const isBehind = performance.now() > until;
  return { droppedPartitions, droppedRaw, deletedRows, busy, isBehind };
}

interface RunStart {
  readonly nowMs: number;
  readonly retentions: Retentions;
  readonly watermarks: Watermarks;
}

/** Settles how far any class may go: a late row is made anew of what is left of its day in each. */
async function beginRun(
  client: pg.Client,
  { hypertables, continuousAggregates }: RetentionDeps,
  { nowMs, retentions, watermarks }: RunStart,
): Promise<DeletionCuts & { readonly oldestMs: number }> {
  const parts = hypertables
    ? await listChunks(client, 'reading')
    : await listPartitions(client, { name: 'reading', partitionDays: 1 });
  const oldestMs = parts[0]?.fromMs ?? Infinity;
  const usedMs = usedUpTo('raw', watermarks);
  const wished = (days: number): number => Math.min(cutOf(nowMs, days), usedMs);
  const cuts = await beginDeletion(client, {
    allMs: wished(retentions.longest.raw),
    ofOrganization: new Map(
      shorterOnes(retentions, 'raw').map(({ organizationId, days }) => [
        organizationId,
        wished(days),
      ]),
    ),
    oldestMs,
    isShared: continuousAggregates,
  });
  return { ...cuts, oldestMs };
}

/** Up to where a class was aggregated into the next one: what was not must not go, however old it is. */
function usedUpTo(name: RetentionClass, watermarks: Watermarks): number {
  const next = RETENTION_CLASSES[RETENTION_CLASSES.indexOf(name) + 1];
  return next === undefined || next === 'raw' ? Infinity : watermarks[next];
}

function tablesOf({ hypertables, continuousAggregates }: RetentionDeps): ClassTable[] {
  return RETENTION_CLASSES.map((name) => {
    const level = LEVELS.find((each) => each.name === name);
    if (level === undefined) {
      const shape = { timeColumn: 'time', partitionDays: 1, hasChunks: hypertables } as const;
      return { name, relation: 'reading', ...shape };
    }
    return {
      name,
      relation: continuousAggregates ? level.relation : level.table,
      timeColumn: 'bucket',
      partitionDays: level.partitionDays,
      hasChunks: continuousAggregates,
    };
  });
}

interface Deletion {
  readonly organizationId: number;
  readonly cutMs: number;
  readonly until: number;
}

async function deleteOf(
  client: pg.Client,
  table: ClassTable,
  { organizationId, cutMs, until }: Deletion,
  { isStopping }: RetentionDeps,
): Promise<number> {
  const parts = table.hasChunks
    ? await listChunks(client, table.relation)
    : await listPartitions(client, { ...table, name: table.relation });
  const atOnce = table.hasChunks ? CHUNK_DEVICES_AT_ONCE : DEVICES_AT_ONCE;
  let deleted = 0;
  for (const part of parts.filter(({ fromMs }) => fromMs < cutMs)) {
    let after = -1;
    for (;;) {
      if (performance.now() > until || isStopping()) return deleted;
      const deviceIds = await devicesOf(client, organizationId, after, atOnce);
      const last = deviceIds.at(-1);
      if (last === undefined) break;
      after = last;
      deleted += await deletePart(client, table, part, { deviceIds, cutMs });
    }
  }
  return deleted;
}

async function devicesOf(
  client: pg.Client,
  organizationId: number,
  after: number,
  limit: number,
): Promise<number[]> {
  const { rows } = await client.query<{ device_id: number }>(
    `SELECT device_id FROM device WHERE organization_id = $1 AND device_id > $2
     ORDER BY device_id LIMIT $3`,
    [organizationId, after, limit],
  );
  return rows.map(({ device_id }) => device_id);
}

async function deletePart(
  client: pg.Client,
  { hasChunks, timeColumn }: ClassTable,
  part: Partition,
  { deviceIds, cutMs }: { deviceIds: readonly number[]; cutMs: number },
): Promise<number> {
  const old = `FROM ${part.table} WHERE device_id = ANY($1::int4[])
    AND ${timeColumn} >= $2::timestamptz AND ${timeColumn} < $3::timestamptz`;
  const values = [deviceIds, isoTime(part.fromMs), isoTime(Math.min(cutMs, part.toMs))];
  const { rows } = await client.query<{ found: boolean }>(
    `SELECT EXISTS (SELECT ${old}) AS found`,
    values,
  );
  if (rows[0]?.found !== true) return 0;
  // Rows of a compressed chunk have no place to go by; what names their segments finds them.
  if (hasChunks) return (await client.query(`DELETE ${old}`, values)).rowCount ?? 0;
  const statement = `DELETE FROM ${part.table} WHERE ctid = ANY (ARRAY(SELECT ctid ${old} LIMIT $4))`;
  let deleted = 0;
  for (;;) {
    const { rowCount } = await client.query(statement, [...values, DELETE_ROWS_MAX]);
    deleted += rowCount ?? 0;
    if ((rowCount ?? 0) < DELETE_ROWS_MAX) return deleted;
  }
}

/**
 * Chunks of a hypertable, or of the one behind a continuous aggregate, oldest first. Their rows are
 * reached through the hypertable: a DELETE from a compressed chunk by its own name finds none.
 */
async function listChunks(client: pg.Client, relation: string): Promise<Partition[]> {
  const { rows } = await client.query<{ table: string; from_ms: number; to_ms: number }>(
    `SELECT format('%I.%I', hypertable_schema, hypertable_name) AS table,
            (extract(epoch FROM range_start) * 1000)::float8 AS from_ms,
            (extract(epoch FROM range_end) * 1000)::float8 AS to_ms
     FROM timescaledb_information.chunks
     WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass = coalesce(
       (SELECT relation FROM rollup_tables() WHERE level = substr($1, 9) AND $1 <> 'reading'),
       to_regclass($1))
     ORDER BY range_start`,
    [relation],
  );
  return rows.map(({ table, from_ms, to_ms }) => ({ table, fromMs: from_ms, toMs: to_ms }));
}

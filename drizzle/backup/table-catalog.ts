import pg from 'pg';
import type { BackupPartition, BackupColumn, BackupSequence } from './backup-format.ts';

/** A table of Puback as the database describes it. */
export interface CatalogTable {
  readonly table: string;
  readonly columns: readonly BackupColumn[];
  readonly isPartitioned: boolean;
  readonly partitions: readonly (BackupPartition & { readonly bytes: number })[];
  /** On disk, without indexes; what a hypertable's chunks have too. */
  readonly bytes: number;
}

/**
 * All tables of the schema `public`, each after those that its foreign keys name. Tables of extensions
 * are left out, and partitions are told with their table.
 */
export async function readTables(client: pg.Client): Promise<CatalogTable[]> {
  const { rows: tables } = await client.query<{
    table: string;
    partitioned: boolean;
    columns: BackupColumn[];
    refers_to: string[];
    bytes: string;
  }>(TABLES);
  const { rows: partitions } = await client.query<
    BackupPartition & { table: string; bytes: string; depth: number }
  >(PARTITIONS);
  const nested = partitions.find(({ depth }) => depth > 1);
  if (nested !== undefined) throw new Error(`partition ${nested.name} is below a partition`);
  const refersTo = new Map(tables.map((row) => [row.table, row.refers_to]));
  const ordered = inOrder(refersTo);
  return tables
    .toSorted((a, b) => ordered.indexOf(a.table) - ordered.indexOf(b.table))
    .map(({ table, columns, partitioned, bytes }) => ({
      table,
      columns,
      isPartitioned: partitioned,
      partitions: partitions
        .filter((partition) => partition.table === table)
        .map(({ name, bound, options, bytes: own }) => ({
          name,
          bound,
          options,
          bytes: Number(own),
        })),
      bytes: Number(bytes),
    }));
}

/** Whether `reading` belongs to TimescaleDB; otherwise it has partitions. */
export function hasHypertables(tables: readonly CatalogTable[]): boolean {
  return tables.some(({ table, isPartitioned }) => table === 'reading' && !isPartitioned);
}

/** Where each sequence of the schema `public` stands: at least as far as any snapshot taken before. */
export async function readSequences(client: pg.Client): Promise<BackupSequence[]> {
  const { rows } = await client.query<BackupSequence>(
    `SELECT sequencename AS name, coalesce(last_value, start_value)::text AS value,
            last_value IS NOT NULL AS "isCalled"
     FROM pg_sequences WHERE schemaname = 'public' ORDER BY 1`,
  );
  return rows;
}

/** A table of the schema `public`, for a statement. */
export function quoteTable(table: string): string {
  return `public.${pg.escapeIdentifier(table)}`;
}

/** Depth first, names in order. A circle of foreign keys is cut where it closes. */
function inOrder(refersTo: ReadonlyMap<string, readonly string[]>): string[] {
  const ordered = new Set<string>();
  const entered = new Set<string>();
  const enter = (table: string): void => {
    if (entered.has(table)) return;
    entered.add(table);
    for (const other of refersTo.get(table) ?? []) enter(other);
    ordered.add(table);
  };
  for (const table of refersTo.keys()) enter(table);
  return [...ordered];
}

const TABLES = `
  SELECT c.relname::text AS "table", c.relkind = 'p' AS partitioned,
         (SELECT jsonb_agg(jsonb_build_object('name', attname, 'type', format_type(atttypid, atttypmod))
                           ORDER BY attnum)
          FROM pg_attribute
          WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '') AS columns,
         ARRAY(SELECT DISTINCT o.relname::text FROM pg_constraint f JOIN pg_class o ON o.oid = f.confrelid
               WHERE f.conrelid = c.oid AND f.contype = 'f' AND o.oid <> c.oid ORDER BY 1) AS refers_to,
         pg_relation_size(c.oid) +
         coalesce((SELECT sum(pg_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = c.oid), 0)
           AS bytes
  FROM pg_class c
  WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid
                    AND deptype = 'e')
  ORDER BY 1`;

const PARTITIONS = `
  WITH RECURSIVE tree AS (
    SELECT i.inhrelid, p.relname::text AS "table", 1 AS depth
    FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
    WHERE p.relnamespace = 'public'::regnamespace AND p.relkind = 'p' AND NOT p.relispartition
    UNION ALL
    SELECT i.inhrelid, tree."table", tree.depth + 1
    FROM tree JOIN pg_inherits i ON i.inhparent = tree.inhrelid
    WHERE (SELECT relkind FROM pg_class WHERE oid = i.inhparent) = 'p'
  )
  SELECT tree."table", c.relname::text AS name, pg_get_expr(c.relpartbound, c.oid) AS bound,
         coalesce(c.reloptions, '{}') AS options, pg_relation_size(c.oid) AS bytes, tree.depth
  FROM tree JOIN pg_class c ON c.oid = tree.inhrelid
  WHERE c.relkind IN ('r', 'p')
  ORDER BY c.relname`;

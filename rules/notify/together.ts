import type pg from 'pg';

/**
 * Runs statements without parameters in one round trip: what is between an alert and its message is mostly
 * waiting for the database. What varies in them must be whole numbers or {@link literal}s.
 * @returns their rows, one list for each.
 */
export async function queryTogether(
  client: pg.ClientBase,
  statements: readonly string[],
): Promise<pg.QueryResultRow[][]> {
  const results: unknown = await client.query(statements.join(';\n'));
  const all = (Array.isArray(results) ? results : [results]) as pg.QueryResult[];
  return all.map(({ rows }) => rows);
}

/** A moment in a statement. */
export function momentOf(ms: number): string {
  return `'${new Date(ms).toISOString()}'::timestamptz`;
}

/** UUIDs that came from the database, as an array in a statement. */
export function uuidsOf(uuids: readonly string[]): string {
  return `ARRAY[${uuids.map((uuid) => `'${uuid.replaceAll(/[^0-9a-f-]/gi, '')}'`).join(',')}]::uuid[]`;
}

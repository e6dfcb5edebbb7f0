import type pg from 'pg';

const SCHEMA = 'bench_peer';

/** The table that the peer writes to: of the same shape and key as `reading`, and in the same database. */
export const PEER_TABLE = `${SCHEMA}.reading`;

/** Makes the table with partitions of today and tomorrow (UTC). `reading` must have partitions too. */
export async function makePeerTable(client: pg.Client): Promise<void> {
  await dropPeerTable(client);
  await client.query(`CREATE SCHEMA ${SCHEMA}`);
  await client.query(
    `CREATE TABLE ${PEER_TABLE} (LIKE public.reading INCLUDING ALL) PARTITION BY RANGE (time)`,
  );
  for (const day of [0, 1]) {
    await client.query(
      `CREATE TABLE ${PEER_TABLE}_${day} PARTITION OF ${PEER_TABLE}
       FOR VALUES FROM ('${utcDay(day)}') TO ('${utcDay(day + 1)}')`,
    );
  }
}

/** Removes all rows, so that the times of one run do not meet those of the next. */
export async function emptyPeerTable(client: pg.Client): Promise<void> {
  await client.query(`TRUNCATE ${PEER_TABLE}`);
}

/** Rows in the table. */
export async function countPeerRows(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ count: string }>(
    `SELECT count(*) AS count FROM ${PEER_TABLE}`,
  );
  return Number(rows[0]?.count);
}

/** Removes the table, if there is one. */
export async function dropPeerTable(client: pg.Client): Promise<void> {
  await client.query(`DROP SCHEMA IF EXISTS ${SCHEMA} CASCADE`);
}

function utcDay(daysAhead: number): string {
  const day = new Date(Date.now() + daysAhead * 86_400_000).toISOString().slice(0, 10);
  return `${day} 00:00:00+00`;
}

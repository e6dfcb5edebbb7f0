import { readJournal } from '../migrate.ts';
import { ageText, sizeText, type Finding, type Look, type Problem } from './examination.ts';

const CONNECTIONS_SHARE_MAX = 0.8;
const DEAD_ROWS_MIN = 100_000;
const DEAD_SHARE_MAX = 0.2;
const SLOT_BYTES_MAX = 1_073_741_824;

/** Version, what the database can do, and whether the schema is this program's. */
export const lookAtServer: Look = async ({ client, capabilities }) => {
  const { rows } = await client.query<{
    version: string;
    extension: string | null;
    size: string;
  }>(
    `SELECT current_setting('server_version') AS version,
            (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS extension,
            pg_database_size(current_database()) AS size`,
  );
  const applied = await client.query<{ count: number }>(
    'SELECT count(*)::int4 AS count FROM drizzle.__drizzle_migrations',
  );
  const known = readJournal().length;
  const count = applied.rows[0]?.count ?? 0;
  const problems: Problem[] = [];
  if (count < known) {
    problems.push({
      what: `${known - count} migrations of this version are not applied`,
      remedy: 'start this version of Puback on the database',
    });
  }
  if (count > known) {
    problems.push({
      what: 'a newer Puback has used this database',
      remedy: 'use the newer version, or restore a backup',
    });
  }
  const row = rows[0];
  const names = Object.entries(capabilities).map(([name, has]) => `${name}: ${has ? 'yes' : 'no'}`);
  return {
    title: 'Server',
    facts: [
      `PostgreSQL ${row?.version ?? '?'}, TimescaleDB ${row?.extension ?? 'not there'}`,
      names.join(', '),
      `migrations: ${count} of ${known}`,
      `size of the database: ${sizeText(Number(row?.size ?? 0))}`,
    ],
    problems,
  };
};

/** Settings that decide whether COMMIT means stored. */
export const lookAtDurability: Look = async ({ client }) => {
  const names = ['fsync', 'full_page_writes', 'synchronous_commit', 'data_checksums', 'autovacuum'];
  const { rows } = await client.query<{ name: string; setting: string }>(
    'SELECT name, setting FROM pg_settings WHERE name = ANY($1) ORDER BY name',
    [names],
  );
  const problems = rows
    .filter(({ name, setting }) => setting === 'off' && name !== 'data_checksums')
    .map(({ name }) => ({
      what: `${name} is off`,
      remedy:
        name === 'autovacuum'
          ? 'turn it on: tables grow without end'
          : `turn it on: a loss of power loses what was acknowledged`,
    }));
  const facts = [rows.map(({ name, setting }) => `${name}: ${setting}`).join(', ')];
  return { title: 'Durability', facts, problems };
};

/**
 * Connections, and transactions that keep dead rows from being cleared away because they are open for
 * longer than so many seconds.
 */
export const lookAtConnections =
  (transactionSecondsMax: number): Look =>
  async ({ client }) => {
    const { rows } = await client.query<{ used: number; most: number }>(
      `SELECT (SELECT count(*)::int4 FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
            current_setting('max_connections')::int4 AS most`,
    );
    const long = await client.query<{ pid: number; program: string; age: number; state: string }>(
      `SELECT pid, application_name AS program, state,
            extract(epoch FROM now() - xact_start)::float8 AS age
     FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()
       AND xact_start < now() - $1 * interval '1 second'
     ORDER BY xact_start LIMIT 10`,
      [transactionSecondsMax],
    );
    const { used = 0, most = 0 } = rows[0] ?? {};
    const problems: Problem[] = long.rows.map(({ pid, program, age, state }) => ({
      what: `a transaction of "${program}" (process ${pid}, ${state}) is open for ${ageText(age)}`,
      remedy: `end it there, or: SELECT pg_terminate_backend(${pid})`,
    }));
    if (used > most * CONNECTIONS_SHARE_MAX) {
      problems.push({
        what: `${used} of ${most} connections are in use`,
        remedy: 'raise max_connections, or lower DATABASE_CONNECTIONS_MAX of the nodes',
      });
    }
    return {
      title: 'Connections',
      facts: [
        `${used} of ${most}; transactions over ${ageText(transactionSecondsMax)}: ${long.rows.length}`,
      ],
      problems,
    };
  };

/** Dead rows, and space that nobody uses: tables left behind, slots that hold the log. */
export const lookAtSpace: Look = async ({ client }) => {
  const dead = await client.query<{ name: string; live: string; dead: string; size: string }>(
    `SELECT relid::regclass::text AS name, n_live_tup AS live, n_dead_tup AS dead,
            pg_total_relation_size(relid) AS size
     FROM pg_stat_user_tables WHERE n_dead_tup > 1000 ORDER BY n_dead_tup DESC LIMIT 5`,
  );
  const detached = await client.query<{ name: string; size: string }>(
    `SELECT oid::regclass::text AS name, pg_total_relation_size(oid) AS size FROM pg_class
     WHERE relkind = 'r' AND NOT relispartition
       AND relname ~ '^(reading|rollup_1[mhd])_\\d{8}$'`,
  );
  const slots = await client.query<{ name: string; held: string }>(
    `SELECT slot_name AS name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) AS held
     FROM pg_replication_slots WHERE NOT active`,
  );
  const problems: Problem[] = [];
  for (const row of dead.rows) {
    const [deadRows, all] = [Number(row.dead), Number(row.dead) + Number(row.live)];
    if (deadRows < DEAD_ROWS_MIN || deadRows < all * DEAD_SHARE_MAX) continue;
    problems.push({
      what: `${deadRows} of ${all} rows of ${row.name} are dead`,
      remedy: `VACUUM ANALYZE ${row.name}; look for transactions that are open for long`,
    });
  }
  for (const { name, size } of detached.rows) {
    problems.push({
      what: `${name} was detached and is still there (${sizeText(Number(size))})`,
      remedy: 'start Puback: its retention clears it away when it is old enough',
    });
  }
  for (const { name, held } of slots.rows) {
    if (Number(held) < SLOT_BYTES_MAX) continue;
    problems.push({
      what: `the replication slot ${name} has no reader and holds ${sizeText(Number(held))} of log`,
      remedy: `connect its reader, or: SELECT pg_drop_replication_slot('${name}')`,
    });
  }
  const facts = dead.rows.map(
    (row) =>
      `${row.name}: ${row.dead} dead of ${Number(row.dead) + Number(row.live)} rows, ${sizeText(Number(row.size))}`,
  );
  return finding('Bloat and unused space', facts, problems);
};

function finding(title: string, facts: string[], problems: Problem[]): Finding {
  return { title, facts: facts.length === 0 ? ['nothing to speak of'] : facts, problems };
}

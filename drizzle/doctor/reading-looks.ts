import { ageText, sizeText, type Look, type Patient, type Problem } from './examination.ts';

const LAG_S_MAX = 900;
const DIRTY_RANGES_MAX = 100_000;
const JOB_AGE_S_MAX: Readonly<Record<string, number>> = { refresh: 900, retention: 86_400 };

/** Partitions or chunks of readings and rollups: how many, how large, and whether tomorrow has one. */
export const lookAtPartitions: Look = async ({ client, capabilities }) => {
  const { rows } = await client.query<{ name: string; parts: number; size: string }>(
    capabilities.hypertables
      ? `SELECT hypertable_name::text AS name, num_chunks::int4 AS parts,
                hypertable_size(format('%I.%I', hypertable_schema, hypertable_name)::regclass) AS size
         FROM timescaledb_information.hypertables ORDER BY 1`
      : `SELECT inhparent::regclass::text AS name, count(*)::int4 AS parts,
                sum(pg_total_relation_size(inhrelid)) AS size
         FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid AND relkind = 'r'
         GROUP BY 1 ORDER BY 1`,
  );
  const facts = rows.map(
    ({ name, parts, size }) =>
      `${name}: ${parts} ${capabilities.hypertables ? 'chunks' : 'partitions'}, ${sizeText(Number(size))}`,
  );
  const problems: Problem[] = [];
  if (!capabilities.hypertables) {
    const ahead = await client.query<{ count: number }>(
      `SELECT count(*)::int4 AS count FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
       WHERE inhparent = 'reading'::regclass AND relname ~ '^reading_\\d{8}$'
         AND right(relname, 8) > to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')`,
    );
    const count = ahead.rows[0]?.count ?? 0;
    facts.push(`partitions ahead: ${count}`);
    if (count === 0) {
      problems.push({
        what: 'there is no partition for tomorrow',
        remedy: 'start Puback, which makes those of the next days; if it runs, look at its log',
      });
    }
  }
  return { title: 'Partitions', facts, problems };
};

/** What the columnstore saves. */
export const lookAtCompression: Look = async ({ client, capabilities }) => {
  if (!capabilities.columnstore) {
    const facts = ['no columnstore: about ten times the disk for the same history'];
    return { title: 'Compression', facts, problems: [] };
  }
  const { rows } = await client.query<{
    total: string;
    compressed: string;
    before: string | null;
    after: string | null;
  }>(
    `SELECT total_chunks AS total, number_compressed_chunks AS compressed,
            before_compression_total_bytes AS before, after_compression_total_bytes AS after
     FROM hypertable_columnstore_stats('reading')`,
  );
  const overdue = await client.query<{ count: number }>(
    `SELECT count(*)::int4 AS count FROM timescaledb_information.chunks
     WHERE hypertable_name = 'reading' AND NOT is_compressed AND range_end < now() - interval '9 days'`,
  );
  const { total = '0', compressed = '0', before = null, after = null } = rows[0] ?? {};
  const facts = [`${compressed} of ${total} chunks of reading are compressed`];
  if (before !== null && after !== null && Number(after) > 0) {
    const ratio = (Number(before) / Number(after)).toFixed(1);
    facts.push(`${sizeText(Number(before))} became ${sizeText(Number(after))}, ${ratio} to 1`);
  }
  const late = overdue.rows[0]?.count ?? 0;
  const problems = [
    {
      what: `${late} chunks should have been compressed by now`,
      remedy: 'look at the jobs below; Puback runs the policy itself when the scheduler does not',
    },
  ];
  return { title: 'Compression', facts, problems: late === 0 ? [] : problems };
};

/** How far the rollups are, and what waits. */
export const lookAtAggregates: Look = async (patient) => {
  const { client } = patient;
  const levels = await client.query<{ level: string; behind: number | null; at: string }>(
    `SELECT level, watermark::text AS at,
            CASE WHEN isfinite(watermark) THEN extract(epoch FROM
              least(now(), (SELECT max(time) FROM device_latest)) - watermark)::float8 END AS behind
     FROM aggregate_watermark ORDER BY watermark DESC, level`,
  );
  const jobs = await client.query<{ job: string; age: number }>(
    `SELECT job, extract(epoch FROM now() - succeeded_at)::float8 AS age FROM aggregate_job ORDER BY 1`,
  );
  const waiting = await client.query<{ count: number }>(
    `SELECT count(*)::int4 AS count FROM (SELECT FROM dirty_range LIMIT $1 + 1) AS counted`,
    [DIRTY_RANGES_MAX],
  );
  const dirty = waiting.rows[0]?.count ?? 0;
  const problems = await findSkips(patient);
  const remedy = 'start Puback; if it runs, its log and puback_aggregates_failures_total say why';
  for (const { level, behind } of levels.rows) {
    if (level !== '1m' || behind === null || behind <= LAG_S_MAX) continue;
    problems.push({ what: `aggregates are ${ageText(behind)} behind the readings`, remedy });
  }
  for (const { job, age } of jobs.rows) {
    if (age <= (JOB_AGE_S_MAX[job] ?? Infinity)) continue;
    problems.push({ what: `the job ${job} last came through ${ageText(age)} ago`, remedy });
  }
  if (dirty > DIRTY_RANGES_MAX) {
    problems.push({
      what: `more than ${DIRTY_RANGES_MAX} notes of late rows wait`,
      remedy: 'an import may be running; otherwise look for devices whose clocks are behind',
    });
  }
  const facts = [
    ...levels.rows.map(({ level, at }) => `${level}: materialised up to ${at}`),
    ...jobs.rows.map(({ job, age }) => `job ${job}: came through ${ageText(age)} ago`),
    `notes of late rows that wait: ${dirty}`,
  ];
  return { title: 'Aggregates', facts, problems };
};

async function findSkips({ client }: Patient): Promise<Problem[]> {
  const { rows } = await client.query<{ count: string; level: string; at: string; error: string }>(
    `SELECT count(*) OVER () AS count, level, error,
            format('device_id %s, %s', device_id, hour) AS at
     FROM aggregate_skip ORDER BY skipped_at DESC LIMIT 1`,
  );
  return rows.map(({ count, level, at, error }) => ({
    what: `${count} hours of devices are not in the aggregates, the last one ${level}, ${at}: ${error}`,
    remedy:
      'correct the readings, then INSERT INTO dirty_range (device_id, hour) SELECT device_id, hour FROM aggregate_skip',
  }));
}

/** The jobs of the database's own scheduler. */
export const lookAtJobs: Look = async ({ client, capabilities }) => {
  if (!capabilities.hypertables) {
    return { title: 'Policies and jobs', facts: ['none: Puback runs its own'], problems: [] };
  }
  const { rows } = await client.query<{
    id: number;
    name: string;
    relation: string | null;
    every: string;
    status: string | null;
    started: string | null;
    failures: string | null;
    error: string | null;
  }>(
    `SELECT jobs.job_id AS id, jobs.proc_name AS name, jobs.hypertable_name::text AS relation,
            jobs.schedule_interval::text AS every, last_run_status AS status,
            last_run_started_at::text AS started, total_failures AS failures,
            (SELECT err_message FROM timescaledb_information.job_errors
             WHERE job_errors.job_id = jobs.job_id ORDER BY finish_time DESC LIMIT 1) AS error
     FROM timescaledb_information.jobs
     LEFT JOIN timescaledb_information.job_stats USING (job_id) ORDER BY jobs.job_id`,
  );
  const problems = rows
    .filter(({ status }) => status === 'Failed')
    .map(({ id, name, error }) => ({
      what: `job ${id} (${name}) failed: ${error ?? 'see the log of the server'}`,
      remedy: `try CALL run_job(${id}) by hand; if that works, its scheduler is at fault and Puback runs it`,
    }));
  const facts = rows.map(
    ({ id, name, relation, every, status, started, failures }) =>
      `${id} ${name}${relation === null ? '' : ` of ${relation}`}: every ${every}, last ${started ?? 'never'} ${status ?? ''}, ${failures ?? 0} failures`,
  );
  return { title: 'Policies and jobs', facts, problems };
};

/** Who keeps less than the settings say. */
export const lookAtRetention: Look = async ({ client }) => {
  const { rows } = await client.query<{ slug: string; asked: string }>(
    `SELECT slug, string_agg(format('%s %s d', class, days), ', ' ORDER BY class DESC) AS asked
     FROM retention JOIN organization USING (organization_id) GROUP BY 1 ORDER BY 1 LIMIT 20`,
  );
  const oldest = await client.query<{ oldest: string | null }>(
    `SELECT min(bucket)::text AS oldest FROM reading_1d`,
  );
  const facts = [
    ...rows.map(({ slug, asked }) => `${slug} asks for ${asked}`),
    ...(rows.length === 0 ? ['all organizations keep what the settings say (RETENTION_*_D)'] : []),
    `oldest day in the aggregates: ${oldest.rows[0]?.oldest ?? 'none'}`,
  ];
  return { title: 'Retention', facts, problems: [] };
};

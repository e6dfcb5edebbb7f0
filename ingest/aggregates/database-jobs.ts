import type pg from 'pg';

/** A job of the database's own scheduler. */
export interface DatabaseJob {
  readonly jobId: number;
  readonly name: string;
  readonly intervalMs: number;
  /** Null: never. */
  readonly lastStartedMs: number | null;
  readonly isFailing: boolean;
  /** What the last failed run said; null when nothing is known. */
  readonly error: string | null;
}

/** A compression of a day of a large fleet takes minutes. */
const RUN_MS_MAX = 3_600_000;

/** The jobs that keep `reading` and its rollups, not those of others in the same database. */
export async function listDatabaseJobs(client: pg.ClientBase): Promise<DatabaseJob[]> {
  const { rows } = await client.query<{
    job_id: number;
    name: string;
    interval_ms: number;
    started_ms: number | null;
    failing: boolean;
    error: string | null;
  }>(
    `SELECT jobs.job_id, jobs.proc_name AS name,
            (extract(epoch FROM jobs.schedule_interval) * 1000)::float8 AS interval_ms,
            CASE WHEN isfinite(last_run_started_at)
              THEN (extract(epoch FROM last_run_started_at) * 1000)::float8 END AS started_ms,
            last_run_status IS NOT DISTINCT FROM 'Failed' AS failing,
            (SELECT err_message FROM timescaledb_information.job_errors
             WHERE job_errors.job_id = jobs.job_id ORDER BY finish_time DESC LIMIT 1) AS error
     FROM timescaledb_information.jobs
     LEFT JOIN timescaledb_information.job_stats USING (job_id)
     WHERE jobs.scheduled AND jobs.hypertable_name IS NOT NULL
       AND (jobs.hypertable_name = 'reading' OR
            format('%I.%I', jobs.hypertable_schema, jobs.hypertable_name)::regclass
              IN (SELECT relation FROM rollup_tables()))
     ORDER BY jobs.job_id`,
  );
  return rows.map((row) => ({
    jobId: row.job_id,
    name: row.name,
    intervalMs: row.interval_ms,
    lastStartedMs: row.started_ms,
    isFailing: row.failing,
    error: row.error,
  }));
}

/**
 * Runs the jobs that the scheduler should have run twice by now, one after the other, here. The scheduler
 * of TimescaleDB failed every job on one minor of PostgreSQL while `run_job` worked.
 */
export class DatabaseJobs {
  readonly #clock: () => number;
  /** When a job was first seen, and when we last ran it: the statistics know nothing of our runs. */
  readonly #seenMs = new Map<number, number>();

  constructor(clock: () => number) {
    this.#clock = clock;
  }

  /** @returns all jobs, and how many were overdue and run here. */
  async run(client: pg.Client): Promise<{ jobs: DatabaseJob[]; forced: number }> {
    const jobs = await listDatabaseJobs(client);
    const now = this.#clock();
    let forced = 0;
    for (const { jobId, intervalMs, lastStartedMs } of jobs) {
      const seenMs = this.#seenMs.get(jobId) ?? now;
      this.#seenMs.set(jobId, seenMs);
      if (now - Math.max(seenMs, lastStartedMs ?? seenMs) <= 2 * intervalMs) continue;
      await client.query(`SET statement_timeout = ${RUN_MS_MAX}`);
      // pg takes a bound for one query; the type of a query of text does not have it.
      const call = { text: `CALL run_job(${jobId})`, query_timeout: RUN_MS_MAX };
      await client.query(call);
      await client.query('RESET statement_timeout');
      this.#seenMs.set(jobId, this.#clock());
      forced += 1;
    }
    return { jobs, forced };
  }
}

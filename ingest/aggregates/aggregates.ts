import type pg from 'pg';
import type { Registry as MetricsRegistry } from 'prom-client';
import type { Database } from '../../drizzle/database.ts';
import type { RetentionBounds } from '../../drizzle/retention.ts';
import { reasonOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { ContinuousMaterializer } from './continuous-materializer.ts';
import { DatabaseJobs, type DatabaseJob } from './database-jobs.ts';
import { JobConnection, withJobLock } from './job-connection.ts';
import { createAggregateMetrics, type AggregateGauges, type AggregateMetrics } from './metrics.ts';
import { Refresh } from './refresh.ts';
import type { Skip } from './skip.ts';
import { runRetention, type RetentionDeps } from './retention-run.ts';
import { NO_STATE, noteSuccess, readState, watermarkMicros, type AggregateState } from './state.ts';
import { TableMaterializer } from './table-materializer.ts';

/** What {@link createAggregates} needs to know of the settings. */
export interface AggregateLimits {
  /** Bound of a connect and of a transaction of the writer (`DATABASE_TIMEOUT_S`). */
  readonly databaseTimeoutMs: number;
  /** From `RETENTION_*_D` and `READING_AGE_MAX_D`. */
  readonly retention: RetentionBounds;
}

/** What {@link createAggregates} needs. */
export interface AggregatesDeps {
  readonly database: Database;
  readonly limits: AggregateLimits;
  readonly metricsRegistry: MetricsRegistry;
  readonly log: Logger;
  /**
   * Told what {@link Aggregates.findWatermark} gives, at the start and after each run, before the next
   * one materialises anything.
   */
  readonly onWatermark?: (micros: number) => void;
  /** Called when partitions of `reading` were dropped: writers may have noted that they exist. */
  readonly onPartitionsDropped?: () => void;
  /** Milliseconds since 1970; the wall clock when left out. */
  readonly clock?: () => number;
}

/** A job of the aggregates: what is new, what came late and what is too old; the database's own jobs. */
export type AggregateJob = 'refresh' | 'retention' | 'database_jobs';

/** How the aggregates are, for `/health/ready`. Behind is no reason to take no requests. */
export interface AggregatesHealth {
  readonly isOk: boolean;
  /** What is wrong, for people; null when nothing is. */
  readonly detail: string | null;
}

/** Keeps rollups, retention and the database's own jobs going. */
export interface Aggregates {
  /** Reads the watermark, then runs the jobs in the background. @throws {StoreUnavailableError} */
  start(): Promise<void>;
  /** Ends the jobs after the step under way. */
  stop(): Promise<void>;
  /**
   * End of the last bucket that any level has materialised, microseconds since 1970, as of the last
   * run; `-Infinity` when there is none. A row before it must be noted in `dirty_range`.
   */
  findWatermark(): number;
  /** How it goes, from memory. */
  healthDetail(): AggregatesHealth;
  /** Runs a job now and waits for its end. @returns false when another node is at it. */
  run(job: AggregateJob): Promise<boolean>;
}

/** How often each job runs, in ms. */
const EVERY_MS: Readonly<Record<AggregateJob, number>> = {
  refresh: 60_000,
  retention: 3_600_000,
  database_jobs: 300_000,
};
/** Until the next run of a job that has more to do, or that failed, in ms. */
const SOON_MS = 2000;
const RETRY_MS = 30_000;
/** Aggregates further behind than this are a detail of health. */
const LAG_MS_MAX = 600_000;

/** Makes the jobs. Nothing runs before `start`. */
export function createAggregates(deps: AggregatesDeps): Aggregates {
  return new JobRunner(deps);
}

/** Runs each job by its own timer and on its own connection, never twice at once. */
class JobRunner implements Aggregates {
  readonly #deps: AggregatesDeps;
  readonly #clock: () => number;
  readonly #metrics: AggregateMetrics;
  readonly #connections: Readonly<Record<AggregateJob, JobConnection>>;
  readonly #work: Readonly<Record<AggregateJob, (client: pg.Client) => Promise<boolean>>>;
  readonly #timers = new Map<AggregateJob, NodeJS.Timeout>();
  readonly #running = new Set<Promise<unknown>>();
  readonly #faults = new Map<AggregateJob, string>();
  #state: AggregateState = NO_STATE;
  #databaseJobs: readonly DatabaseJob[] = [];
  #hasToldSkip = false;
  #isStopping = false;

  constructor(deps: AggregatesDeps) {
    const { database, limits, log, clock = Date.now } = deps;
    this.#deps = deps;
    this.#clock = clock;
    const connection = () => new JobConnection(database.url, limits.databaseTimeoutMs, log);
    this.#connections = {
      refresh: connection(),
      retention: connection(),
      database_jobs: connection(),
    };
    const isStopping = () => this.#isStopping;
    const { continuousAggregates } = database.capabilities;
    const onSkip = (skip: Skip) => this.#noteSkip(skip);
    const materializer = continuousAggregates
      ? new ContinuousMaterializer(onSkip)
      : new TableMaterializer(onSkip);
    const bounds = limits.retention;
    const { databaseTimeoutMs } = limits;
    const onTaken = (notes: number) => this.#metrics.refreshedRanges.inc(notes);
    const ports = { clock, isStopping, onTaken };
    const refresh = new Refresh({ materializer, databaseTimeoutMs, ...ports });
    const databaseJobs = new DatabaseJobs(clock);
    this.#work = {
      refresh: (client) => {
        this.#hasToldSkip = false;
        return refresh.run(client);
      },
      retention: (client) =>
        this.#retain(client, { ...database.capabilities, bounds, clock, isStopping }),
      database_jobs: (client) => this.#lookAtJobs(client, databaseJobs),
    };
    this.#metrics = createAggregateMetrics(deps.metricsRegistry, () => this.#gauges());
  }

  async start(): Promise<void> {
    await this.#connections.refresh.use((client) => this.#readState(client));
    this.#schedule('refresh', 0);
    this.#schedule('retention', SOON_MS);
    if (this.#deps.database.capabilities.hypertables) this.#schedule('database_jobs', SOON_MS);
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    await Promise.allSettled(this.#running);
    await Promise.all(Object.values(this.#connections).map((connection) => connection.close()));
  }

  findWatermark(): number {
    return watermarkMicros(this.#state);
  }

  healthDetail(): AggregatesHealth {
    const faults = [...this.#faults].map(([job, fault]) => `${job}: ${fault}`);
    const lagMs = this.#clock() - this.#state.watermarks['1m'];
    if (Number.isFinite(lagMs) && lagMs > LAG_MS_MAX) {
      faults.push(`aggregates are ${Math.round(lagMs / 1000)} s behind`);
    }
    const { skippedHours } = this.#state;
    if (skippedHours > 0) {
      faults.push(`${skippedHours} hours of devices are left out, npm run db:doctor says why`);
    }
    for (const { name, isFailing, error } of this.#databaseJobs) {
      if (isFailing) faults.push(`job ${name} of the database fails: ${error ?? 'see its log'}`);
    }
    return { isOk: faults.length === 0, detail: faults.length === 0 ? null : faults.join('; ') };
  }

  async run(job: AggregateJob): Promise<boolean> {
    try {
      return (await this.#runOnce(job)) !== 'elsewhere';
    } catch (err) {
      this.#noteFault(job, err);
      throw err;
    }
  }

  #schedule(job: AggregateJob, afterMs: number): void {
    if (this.#isStopping) return;
    const timer = setTimeout(() => {
      const run = this.#runTimed(job).finally(() => this.#running.delete(run));
      this.#running.add(run);
    }, afterMs);
    this.#timers.set(job, timer);
  }

  async #runTimed(job: AggregateJob): Promise<void> {
    let afterMs = EVERY_MS[job];
    try {
      if ((await this.#runOnce(job)) === 'behind') afterMs = SOON_MS;
    } catch (err) {
      afterMs = Math.min(RETRY_MS, afterMs);
      this.#noteFault(job, err);
    }
    this.#schedule(job, afterMs);
  }

  async #runOnce(job: AggregateJob): Promise<'done' | 'behind' | 'elsewhere'> {
    let isBehind = false;
    const isMine = await this.#connections[job].use(async (client) => {
      const got = await withJobLock(client, job, async () => {
        isBehind = await this.#work[job](client);
        await noteSuccess(client, job);
      });
      await this.#readState(client);
      return got;
    });
    if (this.#faults.delete(job)) this.#deps.log.info({ job }, 'aggregates go on');
    if (!isMine) return 'elsewhere';
    return isBehind ? 'behind' : 'done';
  }

  async #readState(client: pg.Client): Promise<void> {
    this.#state = await readState(client);
    this.#deps.onWatermark?.(this.findWatermark());
  }

  #noteFault(job: AggregateJob, err: unknown): void {
    this.#metrics.failures.inc({ job });
    if (!this.#faults.has(job)) {
      const { log } = this.#deps;
      log.warn({ job, err: reasonOf(err) }, 'job of the aggregates failed, will be tried again');
    }
    this.#faults.set(job, reasonOf(err));
  }

  /** One line for each run at most: the doctor lists them. */
  #noteSkip({ isNew, hourMs, ...skip }: Skip): void {
    this.#metrics.skippedSpans.inc();
    if (!isNew || this.#hasToldSkip) return;
    this.#hasToldSkip = true;
    const hour = new Date(hourMs).toISOString();
    this.#deps.log.error({ ...skip, hour }, 'aggregates of an hour cannot be made, left out');
  }

  async #retain(client: pg.Client, deps: RetentionDeps): Promise<boolean> {
    const { droppedPartitions, droppedRaw, deletedRows, busy, isBehind } = await runRetention(
      client,
      deps,
    );
    this.#metrics.droppedPartitions.inc(droppedPartitions);
    this.#metrics.deletedRows.inc(deletedRows);
    if (droppedRaw > 0) this.#deps.onPartitionsDropped?.();
    if (droppedPartitions + deletedRows > 0) {
      this.#deps.log.info({ droppedPartitions, deletedRows }, 'old data deleted');
    }
    if (busy > 0) throw new Error(`${busy} partitions that are too old were in use`);
    return isBehind;
  }

  async #lookAtJobs(client: pg.Client, databaseJobs: DatabaseJobs): Promise<boolean> {
    const { jobs, forced } = await databaseJobs.run(client);
    this.#databaseJobs = jobs;
    this.#metrics.forcedJobs.inc(forced);
    if (forced > 0) this.#deps.log.warn({ forced }, 'overdue jobs of the database were run here');
    return false;
  }

  #gauges(): AggregateGauges {
    const { watermarks, succeededMs, dirtyRanges, partitionsAhead } = this.#state;
    const now = this.#clock();
    const sinceSeconds = (timeMs: number | undefined): number =>
      timeMs === undefined || !Number.isFinite(timeMs) ? NaN : (now - timeMs) / 1000;
    return {
      ageSeconds: (job) => sinceSeconds(succeededMs.get(job)),
      lagSeconds: (level) => sinceSeconds(watermarks[level]),
      dirtyRanges,
      partitionsAhead,
      failingJobs: this.#databaseJobs.filter(({ isFailing }) => isFailing).length,
    };
  }
}

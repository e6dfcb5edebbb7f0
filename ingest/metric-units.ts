import type { Pool } from 'pg';
import { reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';

/** Units that are remembered as told. Beyond it all are forgotten, and asked about again. */
const KNOWN_MAX = 100_000;
/** Units that wait for their metric to exist; the oldest goes first. */
const PENDING_MAX = 10_000;
const LINGER_MS = 1000;
const RETRY_MS = 5000;

interface NotedUnit {
  readonly organizationId: number;
  readonly metric: string;
  readonly unit: string;
}

/**
 * The units that devices tell of their metrics, in `hello` or with SenML. The first that a metric is told
 * stays: whoever sets another one by hand is not overruled by a device. Written in the background; a unit
 * whose metric is not there yet waits for it.
 */
export class MetricUnits {
  readonly #pool: Pool;
  readonly #log: Logger;
  readonly #known = new Set<string>();
  readonly #pending = new Map<string, NotedUnit>();
  #timer: NodeJS.Timeout | null = null;
  #isStopped = false;

  constructor(pool: Pool, log: Logger) {
    this.#pool = pool;
    this.#log = log;
  }

  /** Units that are not written yet. */
  get pendingUnits(): number {
    return this.#pending.size;
  }

  /** Notes what a device says. */
  note(organizationId: number, units: Iterable<readonly [string, string]>): void {
    for (const [metric, unit] of units) {
      const key = `${organizationId}/${metric}`;
      if (this.#known.has(key)) continue;
      if (this.#known.size >= KNOWN_MAX) this.#known.clear();
      this.#known.add(key);
      this.#pending.set(key, { organizationId, metric, unit });
      if (this.#pending.size > PENDING_MAX) this.#forgetOldest();
      this.#schedule(LINGER_MS);
    }
  }

  /** Tells that metrics were made: some may be those whose unit is known. */
  metricsMade(): void {
    if (this.#pending.size > 0) this.#schedule(LINGER_MS);
  }

  /** Writes nothing more. */
  stop(): void {
    this.#isStopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  #forgetOldest(): void {
    for (const key of this.#pending.keys()) {
      this.#pending.delete(key);
      this.#known.delete(key);
      return;
    }
  }

  #schedule(delayMs: number): void {
    if (this.#timer !== null || this.#isStopped) return;
    this.#timer = setTimeout(() => {
      this.#write().then(
        () => {
          this.#timer = null;
        },
        (err: unknown) => {
          this.#timer = null;
          this.#log.debug({ err: reasonOf(err) }, 'units not written, will be tried again');
          this.#schedule(RETRY_MS);
        },
      );
    }, delayMs);
  }

  async #write(): Promise<void> {
    const noted = [...this.#pending.values()];
    const { rows } = await this.#pool.query<{ organization_id: number; name: string }>(
      `WITH noted AS (
         SELECT * FROM unnest($1::int4[], $2::text[], $3::text[]) AS noted (organization_id, name, unit)
       ), changed AS (
         UPDATE metric SET unit = noted.unit FROM noted
         WHERE metric.organization_id = noted.organization_id AND metric.name = noted.name
           AND metric.unit IS NULL
       )
       SELECT organization_id, name FROM metric JOIN noted USING (organization_id, name)`,
      [
        noted.map(({ organizationId }) => organizationId),
        noted.map(({ metric }) => metric),
        noted.map(({ unit }) => unit),
      ],
    );
    for (const row of rows) this.#pending.delete(`${row.organization_id}/${row.name}`);
  }
}

import type { Pool } from 'pg';

/** What a value of a metric is: the kind of its first reading. */
export type MetricKind = 'number' | 'bool' | 'text';

/** Most organizations have dozens of metrics; this bounds the memory of those that have thousands. */
const CACHED_METRICS_MAX = 200_000;

/**
 * Metric names and their ids, by organization. Reads are from memory; new names are made in SQL, once
 * for each name however many devices come with it at once.
 */
export class MetricCatalog {
  readonly #pool: Pool;
  readonly #metricsMax: number;
  readonly #ids = new Map<number, Map<string, number>>();
  readonly #onMade: () => void;
  #cached = 0;

  /** @param onMade told when metrics were made. */
  constructor(pool: Pool, metricsMax: number, onMade: () => void = () => undefined) {
    this.#pool = pool;
    this.#metricsMax = metricsMax;
    this.#onMade = onMade;
  }

  /** The id of a metric, or undefined when it is not in memory. */
  find(organizationId: number, name: string): number | undefined {
    return this.#ids.get(organizationId)?.get(name);
  }

  /**
   * Finds or makes metrics, after which {@link find} knows them.
   * @returns false when the organization would have too many; none is made then.
   */
  async ensure(organizationId: number, kinds: ReadonlyMap<string, MetricKind>): Promise<boolean> {
    const missing = new Map(
      [...kinds].filter(([name]) => this.find(organizationId, name) === undefined),
    );
    if (missing.size === 0) return true;
    for (const row of await this.#select(organizationId, [...missing.keys()])) {
      this.#remember(organizationId, row.name, row.metric_id);
      missing.delete(row.name);
    }
    if (missing.size === 0) return true;
    const made = await this.#insert(organizationId, missing);
    for (const row of made) this.#remember(organizationId, row.name, row.metric_id);
    this.#onMade();
    return made.length === missing.size;
  }

  async #select(organizationId: number, names: string[]): Promise<MetricRow[]> {
    const { rows } = await this.#pool.query<MetricRow>(
      'SELECT name, metric_id FROM metric WHERE organization_id = $1 AND name = ANY($2)',
      [organizationId, names],
    );
    return rows;
  }

  /** DO UPDATE, and not DO NOTHING, so that a name another program has just made is returned as well. */
  async #insert(organizationId: number, kinds: Map<string, MetricKind>): Promise<MetricRow[]> {
    const names = [...kinds.keys()].sort();
    const { rows } = await this.#pool.query<MetricRow>(
      `INSERT INTO metric (organization_id, name, kind)
       SELECT $1, name, kind FROM unnest($2::text[], $3::text[]) AS wanted (name, kind)
       WHERE (SELECT count(*) FROM metric WHERE organization_id = $1) + $4 <= $5
       ON CONFLICT (organization_id, name) DO UPDATE SET name = excluded.name
       RETURNING name, metric_id`,
      [organizationId, names, names.map((name) => kinds.get(name)), names.length, this.#metricsMax],
    );
    return rows;
  }

  #remember(organizationId: number, name: string, metricId: number): void {
    if (this.#cached >= CACHED_METRICS_MAX) {
      this.#ids.clear();
      this.#cached = 0;
    }
    let ids = this.#ids.get(organizationId);
    if (ids === undefined) {
      ids = new Map();
      this.#ids.set(organizationId, ids);
    }
    if (!ids.has(name)) this.#cached += 1;
    ids.set(name, metricId);
  }
}

interface MetricRow {
  readonly name: string;
  readonly metric_id: number;
}

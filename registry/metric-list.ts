import { and, asc, eq, gt } from 'drizzle-orm';
import type { Database } from '../drizzle/database.ts';
import { cutPage, type Page } from '../drizzle/page.ts';
import { metric } from '../drizzle/schema.ts';
import { guardStore } from '../drizzle/sqlstate.ts';

/** A metric of an organization, made by the first reading that carried its name. */
export interface Metric {
  readonly name: string;
  /** Kind of its first reading: `number`, `bool` or `text`. */
  readonly kind: string;
  readonly unit: string | null;
}

/** The metrics of all organizations. */
export interface MetricList {
  /**
   * In the order of names, those after `after`.
   * @throws {StoreUnavailableError} when the database is away.
   */
  list(query: {
    organizationId: number;
    limit: number;
    after: string | null;
  }): Promise<Page<Metric>>;
}

/** Makes the list of metrics. */
export function createMetricList({ database }: { database: Pick<Database, 'orm'> }): MetricList {
  return {
    async list({ organizationId, limit, after }) {
      const isNext = after === null ? undefined : gt(metric.name, after);
      const { name, kind, unit } = metric;
      const query = database.orm.select({ name, kind, unit }).from(metric);
      const rows = await guardStore(
        query
          .where(and(eq(metric.organizationId, organizationId), isNext))
          .orderBy(asc(metric.name))
          .limit(limit + 1),
      );
      return cutPage(rows, limit);
    },
  };
}

import { and, asc, eq, gt } from 'drizzle-orm';
import { cutPage, type Page } from '../drizzle/page.ts';
import { metric } from '../drizzle/schema.ts';
import { inOrganization, type TenantDatabase } from '../drizzle/transaction.ts';

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
export function createMetricList({ database }: { database: TenantDatabase }): MetricList {
  return {
    list: ({ organizationId, limit, after }) =>
      inOrganization(database, organizationId, async ({ orm }) => {
        const isNext = after === null ? undefined : gt(metric.name, after);
        const { name, kind, unit } = metric;
        const rows = await orm
          .select({ name, kind, unit })
          .from(metric)
          .where(and(eq(metric.organizationId, organizationId), isNext))
          .orderBy(asc(metric.name))
          .limit(limit + 1);
        return cutPage(rows, limit);
      }),
  };
}

import type { NodePgDatabase } from 'drizzle-orm/node-postgres';

/** In whose name something is done, as `Author` of the registry. */
export interface RuleAuthor {
  readonly organizationId: number;
  /** Public id of a key, or `puback`. */
  readonly actor: string;
}

/** Writes to the audit trail in the transaction of the change: `writeAudit` of the registry. */
export type WriteAudit = (
  orm: NodePgDatabase,
  entry: RuleAuthor & {
    readonly action: string;
    readonly subject: string;
    readonly change?: Readonly<Record<string, unknown>>;
  },
) => Promise<void>;

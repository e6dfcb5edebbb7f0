import type { NodePgDatabase } from 'drizzle-orm/node-postgres';
import type { CommandAuthor } from './command.ts';

/** Writes to the audit trail in the transaction of the change: `writeAudit` of the registry. */
export type WriteAudit = (
  orm: NodePgDatabase,
  entry: CommandAuthor & {
    readonly action: string;
    readonly subject: string;
    readonly change?: Readonly<Record<string, unknown>>;
  },
) => Promise<void>;

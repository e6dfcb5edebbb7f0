import type { NodePgDatabase } from 'drizzle-orm/node-postgres';
import type { CommandAuthor } from './command.ts';

/** One change, as the audit trail keeps it. */
export interface AuditEntry extends CommandAuthor {
  readonly action: string;
  readonly subject: string;
  readonly change?: Readonly<Record<string, unknown>>;
}

/** Writes to the audit trail in the transaction of the change: `writeAudit` of the registry. */
export type WriteAudit = (orm: NodePgDatabase, entry: AuditEntry) => Promise<void>;

/** The statement that does so: `auditStatement` of the registry. */
export type AuditStatement = (entry: AuditEntry) => string;

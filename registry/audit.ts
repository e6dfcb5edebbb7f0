import type { NodePgDatabase } from 'drizzle-orm/node-postgres';
import { auditEvent } from '../drizzle/schema.ts';
import { makeUuidV7 } from '../drizzle/uuid-v7.ts';

/** One change, as the audit trail keeps it. */
export interface AuditEntry {
  readonly organizationId: number;
  /** Public id of the key that asked for it, or `puback` for the program itself. */
  readonly actor: string;
  /** Noun and verb: `device.create`. */
  readonly action: string;
  /** What was changed: `device/boiler-7`, `device/boiler-7/key/A1b2C3d4`. */
  readonly subject: string;
  /** The new values. Never a secret. */
  readonly change?: Readonly<Record<string, unknown>>;
}

/** Writes to the audit trail, in the transaction of the change that it tells of. */
export async function writeAudit(orm: NodePgDatabase, entry: AuditEntry): Promise<void> {
  await orm.insert(auditEvent).values({ auditEventId: makeUuidV7(Date.now()), ...entry });
}

import type { NodePgDatabase } from 'drizzle-orm/node-postgres';
import { withLiterals } from '../drizzle/literals.ts';
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

const INSERT = `INSERT INTO audit_event
  (audit_event_id, organization_id, actor, action, subject, change)
  VALUES ($1, $2, $3, $4, $5, $6)`;

/** The statement of {@link writeAudit}, for who sends several at once. */
export function auditStatement(entry: AuditEntry): string {
  const { organizationId, actor, action, subject, change } = entry;
  const text = change === undefined ? null : JSON.stringify(change);
  const id = makeUuidV7(Date.now());
  return withLiterals(INSERT, [id, organizationId, actor, action, subject, text]);
}

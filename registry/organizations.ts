import { eq, sql } from 'drizzle-orm';
import type { Database } from '../drizzle/database.ts';
import { organization } from '../drizzle/schema.ts';
import { inTransaction } from '../drizzle/transaction.ts';
import { writeAudit } from './audit.ts';
import type { Author } from './devices.ts';
import type { Revocations } from './revocations.ts';

/** The tenants. */
export interface Organizations {
  /**
   * Refuses all keys of an organization, and ends their live connections, or lets them in again.
   * @throws {StoreUnavailableError} when the database is away.
   */
  setSuspended(author: Author, isSuspended: boolean): Promise<void>;
}

/** Makes the organizations' part of the registry. */
export function createOrganizations(deps: {
  readonly database: Pick<Database, 'pool'>;
  readonly revocations: Revocations;
}): Organizations {
  const { database, revocations } = deps;
  return {
    async setSuspended({ organizationId, actor }, isSuspended) {
      const revocation = { organizationId, isRestored: !isSuspended };
      await inTransaction(database.pool, async (transaction) => {
        await transaction.orm
          .update(organization)
          .set({ suspendedAt: isSuspended ? sql`now()` : null })
          .where(eq(organization.organizationId, organizationId));
        await revocations.announce(transaction, revocation);
        await writeAudit(transaction.orm, {
          organizationId,
          actor,
          action: isSuspended ? 'organization.suspend' : 'organization.resume',
          subject: 'organization',
        });
      });
      revocations.tell(revocation);
    },
  };
}

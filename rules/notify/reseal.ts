import type { Logger } from '../../log.ts';
import { guardStore } from '../../drizzle/sqlstate.ts';
import type { TenantDatabase } from '../../drizzle/transaction.ts';
import { SecretUnreadableError } from '../../rule-errors.ts';
import type { Secrets } from './secrets.ts';

const PAGE_ROWS = 500;

/**
 * Encrypts secrets anew that are not under the first key, so that the other keys can be taken away. To be
 * called at start. One that no key opens stays as it is. @returns how many were encrypted anew, and how many
 * cannot be read. @throws {StoreUnavailableError}
 */
export async function resealSecrets(
  { pool }: Pick<TenantDatabase, 'pool'>,
  secrets: Secrets,
  log: Logger,
): Promise<{ readonly resealed: number; readonly unreadable: number }> {
  let resealed = 0;
  let unreadable = 0;
  let after: string | null = null;
  for (;;) {
    const { rows }: { rows: SealedRow[] } = await guardStore(
      pool.query<SealedRow>(
        `SELECT receiver_id, organization_id, secret, secret_key_id FROM receiver
         WHERE secret IS NOT NULL AND secret_key_id <> $1
           AND ($2::uuid IS NULL OR receiver_id > $2)
         ORDER BY receiver_id LIMIT $3`,
        [secrets.keyId, after, PAGE_ROWS],
      ),
    );
    for (const row of rows) {
      if (await reseal(pool, secrets, row)) resealed += 1;
      else unreadable += 1;
    }
    after = rows.at(-1)?.receiver_id ?? null;
    if (rows.length < PAGE_ROWS) break;
  }
  if (resealed > 0) log.info({ receivers: resealed }, 'secrets encrypted with the first key');
  if (unreadable > 0) log.error({ receivers: unreadable }, 'secrets that no key opens');
  return { resealed, unreadable };
}

interface SealedRow {
  receiver_id: string;
  organization_id: number;
  secret: Buffer;
  secret_key_id: string;
}

async function reseal(
  pool: TenantDatabase['pool'],
  secrets: Secrets,
  row: SealedRow,
): Promise<boolean> {
  const { receiver_id: receiverId, organization_id: organizationId, secret } = row;
  const keyId = row.secret_key_id;
  try {
    const sealed = secrets.seal(receiverId, secrets.open(receiverId, { secret, keyId }));
    // Unless somebody has set another one meanwhile.
    await guardStore(
      pool.query(
        `UPDATE receiver SET secret = $4, secret_key_id = $5
         WHERE organization_id = $1 AND receiver_id = $2 AND secret = $3`,
        [organizationId, receiverId, secret, sealed.secret, sealed.keyId],
      ),
    );
    return true;
  } catch (error) {
    if (error instanceof SecretUnreadableError) return false;
    throw error;
  }
}

import { inOrganization, type TenantDatabase } from '../drizzle/transaction.ts';
import { SignerExistsError, SignerLimitError, SignerNotFoundError } from '../ota-errors.ts';
import { SIGNERS_MAX, type Signer, type Signers } from './firmware.ts';
import type { OtaAuthor, WriteAudit } from './ports.ts';
import { readPublicKey } from './signature.ts';

interface Row {
  signer_id: string;
  public_key: Buffer;
  created_at: Date;
  created_by: string;
  revoked_at: Date | null;
}

const COLUMNS = 'signer_id, public_key, created_at, created_by, revoked_at';

/** Makes the store of signers. */
export function createSigners(database: TenantDatabase, writeAudit: WriteAudit): Signers {
  return {
    async list(organizationId) {
      const { rows } = await inOrganization(database, organizationId, ({ client }) =>
        client.query<Row>(
          `SELECT ${COLUMNS} FROM firmware_signer WHERE organization_id = $1
           ORDER BY signer_id LIMIT $2`,
          [organizationId, SIGNERS_MAX],
        ),
      );
      return rows.map(signerOf);
    },

    async get(organizationId, signerId) {
      const { rows } = await inOrganization(database, organizationId, ({ client }) =>
        client.query<Row>(
          `SELECT ${COLUMNS} FROM firmware_signer
           WHERE organization_id = $1 AND signer_id = $2`,
          [organizationId, storable(signerId)],
        ),
      );
      if (rows[0] === undefined) throw new SignerNotFoundError(signerId);
      return signerOf(rows[0]);
    },

    async create(author, signerId, key) {
      const publicKey = readPublicKey(key);
      return inOrganization(database, author.organizationId, async ({ client, orm }) => {
        const { organizationId, actor } = author;
        const { rows } = await client.query<Row>(
          `INSERT INTO firmware_signer (organization_id, signer_id, public_key, created_by)
           VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING ${COLUMNS}`,
          [organizationId, signerId, publicKey, actor],
        );
        const [made] = rows;
        if (made === undefined) throw new SignerExistsError(signerId);
        const counted = await client.query<{ signers: number }>(
          'SELECT count(*)::int4 AS signers FROM firmware_signer WHERE organization_id = $1',
          [organizationId],
        );
        if ((counted.rows[0]?.signers ?? 0) > SIGNERS_MAX) throw new SignerLimitError(SIGNERS_MAX);
        const change = { publicKey: publicKey.toString('base64') };
        await writeAudit(orm, { ...entryOf(author, 'create', signerId), change });
        return signerOf(made);
      });
    },

    revoke: (author, signerId) =>
      inOrganization(database, author.organizationId, async ({ client, orm }) => {
        const { rows } = await client.query<Row & { is_new: boolean }>(
          `UPDATE firmware_signer AS signer SET revoked_at = coalesce(signer.revoked_at, now())
           FROM (SELECT signer_id, revoked_at FROM firmware_signer
                 WHERE organization_id = $1 AND signer_id = $2 FOR UPDATE) AS before
           WHERE signer.organization_id = $1 AND signer.signer_id = before.signer_id
           RETURNING signer.*, before.revoked_at IS NULL AS is_new`,
          [author.organizationId, storable(signerId)],
        );
        const [row] = rows;
        if (row === undefined) throw new SignerNotFoundError(signerId);
        if (row.is_new) await writeAudit(orm, entryOf(author, 'revoke', signerId));
        return signerOf(row);
      }),
  };
}

function entryOf(author: OtaAuthor, verb: 'create' | 'revoke', signerId: string) {
  const { organizationId, actor } = author;
  return {
    organizationId,
    actor,
    action: `firmware_signer.${verb}`,
    subject: `firmware-signer/${signerId}`,
  };
}

/** Any text may be asked for, also one that PostgreSQL cannot hold; that is the name of nobody. */
function storable(text: string): string {
  return text.replaceAll('\0', '');
}

function signerOf(row: Row): Signer {
  return {
    signerId: row.signer_id,
    publicKey: row.public_key,
    createdAt: row.created_at,
    createdBy: row.created_by,
    revokedAt: row.revoked_at,
  };
}

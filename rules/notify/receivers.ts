import { cutPage, type Page } from '../../drizzle/page.ts';
import {
  inOrganization,
  type TenantDatabase,
  type Transaction,
} from '../../drizzle/transaction.ts';
import { makeUuidV7 } from '../../drizzle/uuid-v7.ts';
import {
  ReceiverExistsError,
  ReceiverInUseError,
  ReceiverInvalidError,
  ReceiverLimitError,
  ReceiverNotFoundError,
} from '../../rule-errors.ts';
import type { RuleAuthor, WriteAudit } from '../audit.ts';
import {
  checkReceiver,
  needsSecretAnew,
  type CheckedReceiver,
  type WantedReceiver,
} from './receiver-check.ts';
import type { ReceiverKind, ReceiverSettings } from './receiver-settings.ts';
import type { Senders } from './message.ts';
import type { Secrets } from './secrets.ts';

/** A receiver as it may be shown. */
export interface Receiver {
  readonly receiverId: string;
  readonly name: string;
  readonly kind: ReceiverKind;
  readonly settings: ReceiverSettings;
  readonly hasSecret: boolean;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** A receiver that was saved. */
export interface SavedReceiver extends Receiver {
  /** What may be a slip, one line for each thing: a host that does not resolve. */
  readonly warnings: readonly string[];
}

/** What of a receiver may be changed; what is left out stays. Null takes the secret away. */
export interface ReceiverChange {
  readonly name?: string | undefined;
  readonly settings?: unknown;
  readonly secret?: string | null | undefined;
}

/** The receivers of all organizations. Every function asks for the organization and sees no other. */
export interface Receivers {
  /** In the order of creation, those behind `after`. */
  list(query: {
    organizationId: number;
    limit: number;
    after: string | null;
  }): Promise<Page<Receiver>>;
  /** @throws {ReceiverNotFoundError} */
  get(organizationId: number, receiverId: string): Promise<Receiver>;
  /** @throws {ReceiverInvalidError} @throws {ReceiverExistsError} @throws {ReceiverLimitError} */
  create(author: RuleAuthor, wanted: WantedReceiver): Promise<SavedReceiver>;
  /**
   * A password or token is not sent to another server than the one it was given for: it must come anew.
   * @throws {ReceiverNotFoundError} @throws {ReceiverInvalidError} @throws {ReceiverExistsError}
   */
  update(author: RuleAuthor, receiverId: string, change: ReceiverChange): Promise<SavedReceiver>;
  /** What waits for it is given up. @throws {ReceiverNotFoundError} @throws {ReceiverInUseError} */
  remove(author: RuleAuthor, receiverId: string): Promise<void>;
}

/** What {@link createReceivers} needs. */
export interface ReceiversDeps {
  readonly database: TenantDatabase;
  readonly writeAudit: WriteAudit;
  readonly secrets: Secrets;
  readonly senders: Senders;
  readonly limits: { readonly receiversMax: number };
}

/** Every function throws {@link StoreUnavailableError} when the database is away. */
export function createReceivers(deps: ReceiversDeps): Receivers {
  const { database } = deps;
  return {
    list: ({ organizationId, limit, after }) =>
      inOrganization(database, organizationId, async ({ client }) => {
        const { rows } = await client.query<ReceiverRow>(
          `SELECT ${COLUMNS} FROM receiver
           WHERE organization_id = $1 AND ($3::uuid IS NULL OR receiver_id > $3)
           ORDER BY receiver_id LIMIT $2`,
          [organizationId, limit + 1, after],
        );
        return cutPage(rows.map(receiverOf), limit);
      }),

    get: (organizationId, receiverId) =>
      inOrganization(database, organizationId, async (transaction) =>
        receiverOf(await getRow(transaction, organizationId, receiverId)),
      ),

    async create(author, wanted) {
      const checked = await checkReceiver(wanted, deps.senders);
      return inOrganization(database, author.organizationId, (transaction) =>
        insertReceiver(transaction, deps, author, checked),
      );
    },

    update: (author, receiverId, change) => updateReceiver(deps, author, receiverId, change),

    remove: (author, receiverId) =>
      inOrganization(database, author.organizationId, (transaction) =>
        deleteReceiver(transaction, deps, author, receiverId),
      ),
  };
}

const COLUMNS = `receiver_id, name, kind, settings, secret IS NOT NULL AS has_secret, created_at,
  updated_at`;

interface ReceiverRow {
  receiver_id: string;
  name: string;
  kind: ReceiverKind;
  settings: ReceiverSettings;
  has_secret: boolean;
  created_at: Date;
  updated_at: Date;
}

function receiverOf(row: ReceiverRow): Receiver {
  return {
    receiverId: row.receiver_id,
    name: row.name,
    kind: row.kind,
    settings: row.settings,
    hasSecret: row.has_secret,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

async function getRow(
  { client }: Transaction,
  organizationId: number,
  receiverId: string,
): Promise<ReceiverRow> {
  const { rows } = await client.query<ReceiverRow>(
    `SELECT ${COLUMNS} FROM receiver WHERE organization_id = $1 AND receiver_id = $2`,
    [organizationId, receiverId],
  );
  const [row] = rows;
  if (row === undefined) throw new ReceiverNotFoundError(receiverId);
  return row;
}

/**
 * Lets one change at a time of an organization's receivers and routes go on, so that counts, and that
 * routes tell receivers that exist, stay true until COMMIT.
 */
export async function lockNotifying(
  { client }: Transaction,
  organizationId: number,
): Promise<void> {
  await client.query('SELECT FROM organization WHERE organization_id = $1 FOR NO KEY UPDATE', [
    organizationId,
  ]);
}

async function insertReceiver(
  transaction: Transaction,
  { limits, secrets, writeAudit }: ReceiversDeps,
  { organizationId, actor }: RuleAuthor,
  { name, kind, settings, secret, warnings }: CheckedReceiver,
): Promise<SavedReceiver> {
  const { client, orm } = transaction;
  await lockNotifying(transaction, organizationId);
  const { rows: counted } = await client.query<{ receivers: number; is_taken: boolean }>(
    `SELECT count(*)::int4 AS receivers, coalesce(bool_or(name = $2), false) AS is_taken
     FROM receiver WHERE organization_id = $1`,
    [organizationId, name],
  );
  if (counted[0]?.is_taken === true) throw new ReceiverExistsError(name);
  if ((counted[0]?.receivers ?? 0) >= limits.receiversMax) {
    throw new ReceiverLimitError(limits.receiversMax);
  }
  const receiverId = makeUuidV7(Date.now());
  const sealed = secret === null ? null : secrets.seal(receiverId, secret);
  const { rows } = await client.query<ReceiverRow>(
    `INSERT INTO receiver (receiver_id, organization_id, name, kind, settings, secret, secret_key_id)
     VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING ${COLUMNS}`,
    [
      receiverId,
      organizationId,
      name,
      kind,
      JSON.stringify(settings),
      sealed?.secret ?? null,
      sealed?.keyId ?? null,
    ],
  );
  await writeAudit(orm, {
    organizationId,
    actor,
    action: 'receiver.create',
    subject: `receiver/${receiverId}`,
    change: { name, kind, settings, hasSecret: secret !== null },
  });
  return { ...receiverOf(rows[0] as ReceiverRow), warnings };
}

async function updateReceiver(
  deps: ReceiversDeps,
  { organizationId, actor }: RuleAuthor,
  receiverId: string,
  change: ReceiverChange,
): Promise<SavedReceiver> {
  const { database, senders, secrets, writeAudit } = deps;
  const before = await inOrganization(database, organizationId, (transaction) =>
    getRow(transaction, organizationId, receiverId),
  );
  const { secret: newSecret, name = before.name, settings = before.settings } = change;
  if (newSecret === undefined && before.has_secret && needsSecretAnew(before, settings)) {
    throw new ReceiverInvalidError('the server changes: give "secret" again, or null');
  }
  const checked = await checkReceiver(
    { name, kind: before.kind, settings, secret: newSecret ?? null },
    senders,
    newSecret === undefined && before.has_secret,
  );
  const sealed = typeof newSecret === 'string' ? secrets.seal(receiverId, newSecret) : null;
  const updated = await inOrganization(database, organizationId, async (transaction) => {
    const { client, orm } = transaction;
    await lockNotifying(transaction, organizationId);
    await assertNameFree(transaction, organizationId, { receiverId, name });
    const { rows } = await client.query<ReceiverRow>(
      `UPDATE receiver SET name = $3, settings = $4, updated_at = now(),
         secret = CASE WHEN $5 THEN $6 ELSE secret END,
         secret_key_id = CASE WHEN $5 THEN $7 ELSE secret_key_id END
       WHERE organization_id = $1 AND receiver_id = $2 AND settings = $8::jsonb RETURNING ${COLUMNS}`,
      [
        organizationId,
        receiverId,
        name,
        JSON.stringify(checked.settings),
        newSecret !== undefined,
        sealed?.secret ?? null,
        sealed?.keyId ?? null,
        JSON.stringify(before.settings),
      ],
    );
    const [row] = rows;
    if (row === undefined) return null;
    await writeAudit(orm, {
      organizationId,
      actor,
      action: 'receiver.update',
      subject: `receiver/${receiverId}`,
      change: { name, settings: checked.settings, isSecretChanged: newSecret !== undefined },
    });
    return { ...receiverOf(row), warnings: checked.warnings };
  });
  // Somebody else has changed what was checked, or deleted it.
  return updated ?? updateReceiver(deps, { organizationId, actor }, receiverId, change);
}

async function assertNameFree(
  { client }: Transaction,
  organizationId: number,
  { receiverId, name }: { readonly receiverId: string; readonly name: string },
): Promise<void> {
  const { rowCount } = await client.query(
    'SELECT FROM receiver WHERE organization_id = $1 AND name = $2 AND receiver_id <> $3',
    [organizationId, name, receiverId],
  );
  if (rowCount !== 0) throw new ReceiverExistsError(name);
}

async function deleteReceiver(
  transaction: Transaction,
  { writeAudit }: ReceiversDeps,
  { organizationId, actor }: RuleAuthor,
  receiverId: string,
): Promise<void> {
  const { client, orm } = transaction;
  await lockNotifying(transaction, organizationId);
  const { name } = await getRow(transaction, organizationId, receiverId);
  const { rows } = await client.query<{ route: string }>(
    `SELECT definition->>'name' AS route FROM notification_route
     WHERE organization_id = $1 AND definition->'receivers' ? $2 LIMIT 1`,
    [organizationId, receiverId],
  );
  if (rows[0] !== undefined) throw new ReceiverInUseError(rows[0].route);
  const values = [organizationId, receiverId];
  await client.query(
    'DELETE FROM notification_group WHERE organization_id = $1 AND receiver_id = $2',
    values,
  );
  await client.query(
    `UPDATE notification SET state = 'dead', reason = 'the receiver is deleted', next_attempt_at = NULL
     WHERE organization_id = $1 AND receiver_id = $2 AND state = 'waiting'`,
    values,
  );
  await client.query(
    'DELETE FROM receiver WHERE organization_id = $1 AND receiver_id = $2',
    values,
  );
  await writeAudit(orm, {
    organizationId,
    actor,
    action: 'receiver.delete',
    subject: `receiver/${receiverId}`,
    change: { name },
  });
}

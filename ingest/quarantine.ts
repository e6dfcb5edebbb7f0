import type { Page } from '../drizzle/page.ts';
import { inOrganization, type TenantDatabase, type Transaction } from '../drizzle/transaction.ts';
import { QuarantineChangedError, QuarantineNotFoundError } from '../errors.ts';
import {
  MESSAGE_COLUMNS,
  filterClauses,
  messageOf,
  revisionOf,
  type QuarantineAuthor,
  type QuarantineFilter,
  type QuarantineRow,
  type QuarantinedMessage,
  type WriteAudit,
} from './quarantine-row.ts';

/** A question for quarantine. */
export interface QuarantineQuery extends QuarantineFilter {
  readonly organizationId: number;
  readonly limit: number;
  /** Id of the last message of the page before. */
  readonly after: string | null;
}

/** One message with what it was before it was edited. */
export interface InspectedMessage extends QuarantinedMessage {
  /** As sent; null when the payload was never edited. */
  readonly originalPayload: Buffer | null;
  /** For {@link QuarantineEdit}. */
  readonly revision: string;
}

/** What of a message is to become different; what is left out stays. */
export interface QuarantineEdit {
  /** Of the message as it was read. */
  readonly revision: string;
  readonly topic?: string | undefined;
  readonly payload?: Buffer | undefined;
}

/** The messages that firmware authors have to look at. All throw {@link StoreUnavailableError}. */
export interface Quarantine {
  /**
   * One page, newest first. It ends before `limit` when its payloads would be more than 8 MiB, and
   * says so like any page with more behind it.
   */
  list(query: QuarantineQuery): Promise<Page<QuarantinedMessage>>;
  /** @throws {QuarantineNotFoundError} */
  get(organizationId: number, quarantineId: string): Promise<InspectedMessage>;
  /**
   * Changes what would be stored of a message. What the device sent is kept beside it.
   * @throws {QuarantineNotFoundError} @throws {QuarantineChangedError} of another revision.
   */
  edit(
    author: QuarantineAuthor,
    quarantineId: string,
    edit: QuarantineEdit,
  ): Promise<InspectedMessage>;
  /** Deletes a message for good. @throws {QuarantineNotFoundError} */
  remove(author: QuarantineAuthor, quarantineId: string): Promise<void>;
  /** Deletes up to `limit` messages for good, oldest first. */
  removeMany(
    author: QuarantineAuthor,
    filter: QuarantineFilter,
    limit: number,
  ): Promise<{ readonly deleted: number; readonly hasMore: boolean }>;
}

const PAGE_PAYLOAD_BYTES_MAX = 8_388_608;

/** Makes it; the writer of ingest puts the messages in, and `pruneQuarantine` takes old ones out. */
export function createQuarantine(database: TenantDatabase, writeAudit: WriteAudit): Quarantine {
  return {
    list: (query) => listPage(database, query),
    get: (organizationId, quarantineId) =>
      inOrganization(database, organizationId, (transaction) =>
        getMessage(transaction, organizationId, quarantineId),
      ),
    edit: (author, quarantineId, edit) =>
      inOrganization(database, author.organizationId, async (transaction) => {
        await editMessage(transaction, author, quarantineId, edit);
        const change = { topic: edit.topic, payload: edit.payload?.length };
        await audit(transaction, author, { verb: 'edit', quarantineId, change });
        return getMessage(transaction, author.organizationId, quarantineId);
      }),
    remove: (author, quarantineId) =>
      inOrganization(database, author.organizationId, async (transaction) => {
        const { rowCount } = await transaction.client.query(
          'DELETE FROM quarantine WHERE organization_id = $1 AND quarantine_id = $2',
          [author.organizationId, quarantineId],
        );
        if (rowCount === 0) throw new QuarantineNotFoundError(quarantineId);
        await audit(transaction, author, { verb: 'delete', quarantineId });
      }),
    removeMany: (author, filter, limit) =>
      inOrganization(database, author.organizationId, async (transaction) => {
        const deleted = await deleteMany(transaction, author.organizationId, filter, limit);
        const change = { ...filter, deleted };
        await audit(transaction, author, { verb: 'delete', quarantineId: null, change });
        return { deleted, hasMore: deleted === limit };
      }),
  };

  function audit({ orm }: Transaction, author: QuarantineAuthor, done: Done): Promise<void> {
    const { organizationId, actor } = author;
    const { verb, quarantineId, change = {} } = done;
    const subject = quarantineId === null ? 'quarantine' : `quarantine/${quarantineId}`;
    return writeAudit(orm, {
      organizationId,
      actor,
      action: `quarantine.${verb}`,
      subject,
      change,
    });
  }
}

/** What was done, for the audit trail. */
interface Done {
  readonly verb: 'edit' | 'delete';
  /** Null: to many. */
  readonly quarantineId: string | null;
  readonly change?: Readonly<Record<string, unknown>>;
}

/** The lengths of payloads are summed up before any payload is read. */
async function listPage(
  database: TenantDatabase,
  { organizationId, limit, after, ...filter }: QuarantineQuery,
): Promise<Page<QuarantinedMessage>> {
  const values: unknown[] = [organizationId, limit + 1, PAGE_PAYLOAD_BYTES_MAX];
  const give = (value: unknown): string => `$${values.push(value)}`;
  const filters = filterClauses(filter, give);
  const behind = after === null ? '' : `AND quarantine_id < ${give(after)}`;
  const { rows } = await inOrganization(database, organizationId, ({ client }) =>
    client.query<QuarantineRow & { found: number }>(
      `SELECT ${MESSAGE_COLUMNS}, page.found
       FROM (
         SELECT *, (count(*) OVER ())::int4 AS found,
                sum(octet_length(payload)) OVER (ORDER BY quarantine_id DESC) AS bytes,
                row_number() OVER (ORDER BY quarantine_id DESC) AS place
         FROM (
           SELECT * FROM quarantine WHERE organization_id = $1 ${filters} ${behind}
           ORDER BY quarantine_id DESC LIMIT $2
         ) AS asked
       ) AS page
       LEFT JOIN device USING (device_id)
       WHERE page.place = 1 OR (page.place < $2 AND page.bytes <= $3)
       ORDER BY page.quarantine_id DESC`,
      values,
    ),
  );
  return { rows: rows.map(messageOf), hasMore: (rows[0]?.found ?? 0) > rows.length };
}

async function getMessage(
  { client }: Transaction,
  organizationId: number,
  quarantineId: string,
): Promise<InspectedMessage> {
  const { rows } = await client.query<QuarantineRow & { original_payload: Buffer | null }>(
    `SELECT ${MESSAGE_COLUMNS}, page.original_payload
     FROM quarantine AS page LEFT JOIN device USING (device_id)
     WHERE page.organization_id = $1 AND page.quarantine_id = $2`,
    [organizationId, quarantineId],
  );
  const [row] = rows;
  if (row === undefined) throw new QuarantineNotFoundError(quarantineId);
  return { ...messageOf(row), originalPayload: row.original_payload, revision: revisionOf(row) };
}

async function editMessage(
  { client }: Transaction,
  { organizationId }: QuarantineAuthor,
  quarantineId: string,
  { revision, topic, payload }: QuarantineEdit,
): Promise<void> {
  const { rows } = await client.query<{ topic: string; payload: Buffer }>(
    `SELECT topic, payload FROM quarantine WHERE organization_id = $1 AND quarantine_id = $2
     FOR UPDATE`,
    [organizationId, quarantineId],
  );
  const [before] = rows;
  if (before === undefined) throw new QuarantineNotFoundError(quarantineId);
  if (revisionOf(before) !== revision) throw new QuarantineChangedError(quarantineId);
  await client.query(
    `UPDATE quarantine SET topic = $3, payload = $4, edited_at = now(),
       original_payload = CASE WHEN payload = $4 THEN original_payload
         ELSE coalesce(original_payload, payload) END
     WHERE organization_id = $1 AND quarantine_id = $2`,
    [organizationId, quarantineId, topic ?? before.topic, payload ?? before.payload],
  );
}

async function deleteMany(
  { client }: Transaction,
  organizationId: number,
  filter: QuarantineFilter,
  limit: number,
): Promise<number> {
  const values: unknown[] = [organizationId, limit];
  const filters = filterClauses(filter, (value) => `$${values.push(value)}`);
  const { rowCount } = await client.query(
    `DELETE FROM quarantine WHERE quarantine_id IN (
       SELECT quarantine_id FROM quarantine WHERE organization_id = $1 ${filters}
       ORDER BY quarantine_id LIMIT $2)`,
    values,
  );
  return rowCount ?? 0;
}

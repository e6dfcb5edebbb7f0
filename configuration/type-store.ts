import {
  ConfigurationChangedError,
  ConfigurationTypeLimitError,
  ConfigurationTypeNotFoundError,
} from '../command-errors.ts';
import { cutPage } from '../drizzle/page.ts';
import { inOrganization, type TenantDatabase, type Transaction } from '../drizzle/transaction.ts';
import type {
  ConfigurationAuthor,
  Configurations,
  Document,
  Held,
  TypeConfiguration,
  TypeEdit,
  TypeEffect,
  WriteAudit,
} from './configuration.ts';
import { assertDocument, readSchema } from './document-check.ts';
import { isSameJson } from './merge-patch.ts';
import type { Renewal } from './renewal.ts';

/** What {@link createTypeStore} needs. */
export interface TypeStoreDeps {
  readonly database: TenantDatabase;
  readonly writeAudit: WriteAudit;
  readonly renewal: Renewal;
  /** Asks for the rest of a renewal that took too long for an answer. */
  readonly renewLater: () => void;
  readonly documentBytesMax: number;
  readonly typesMax: number;
}

/** What people do with what is set for types. */
export type TypeStore = Pick<Configurations, 'getType' | 'listTypes' | 'putType' | 'removeType'>;

/** Devices that are held and listed in an answer. */
const HELD_LISTED_MAX = 100;
/** Longest time that an answer waits for its devices; the rest follows behind it. */
const RENEW_MS_MAX = 20_000;

/** Makes {@link TypeStore}. */
export function createTypeStore(deps: TypeStoreDeps): TypeStore {
  const { database } = deps;
  return {
    getType: (organizationId, type) =>
      inOrganization(database, organizationId, async (transaction) => {
        const found = await findType(transaction, organizationId, type);
        if (found === null) throw new ConfigurationTypeNotFoundError(type);
        return found;
      }),
    listTypes: ({ organizationId, limit, after }) =>
      inOrganization(database, organizationId, async ({ client }) => {
        const { rows } = await client.query<TypeColumns>(
          `${TYPES} AND ($2::text IS NULL OR device_type > $2) ORDER BY device_type LIMIT $3`,
          [organizationId, after, limit + 1],
        );
        return cutPage(rows.map(typeOf), limit);
      }),
    async putType(author, edit) {
      assertDocument(edit.defaults, 'the defaults', deps.documentBytesMax);
      readSchema(edit.schema);
      const type = await inOrganization(database, author.organizationId, (transaction) =>
        saveType(deps, transaction, author, edit),
      );
      return { type, effect: await renewType(deps, author, edit.type) };
    },
    async removeType(author, type, version) {
      await inOrganization(database, author.organizationId, (transaction) =>
        deleteType(deps, transaction, author, type, version),
      );
      return renewType(deps, author, type);
    },
  };
}

/*
 * A type that was removed and is set again goes on counting: rows whose document was made with one of its
 * old versions must not look as if they were made with the new one.
 */
const NEXT_VERSION = `
  SELECT coalesce(max(type_version), 0)::int4 + 1 AS version FROM device_configuration
  WHERE organization_id = $1 AND device_type = $2`;

async function saveType(
  deps: TypeStoreDeps,
  transaction: Transaction,
  author: ConfigurationAuthor,
  { type, defaults, schema, version }: TypeEdit,
): Promise<TypeConfiguration> {
  const { client, orm } = transaction;
  const { organizationId, actor } = author;
  await holdTypes(transaction, organizationId);
  const before = await findType(transaction, organizationId, type);
  assertVersion(before, version);
  if (before !== null && isSameJson([defaults, schema], [before.defaults, before.schema])) {
    return before;
  }
  if (before === null) await assertRoom(transaction, organizationId, deps.typesMax);
  const next = await client.query<{ version: number }>(NEXT_VERSION, [organizationId, type]);
  const number = Math.max(before?.version ?? 0, (next.rows[0]?.version ?? 1) - 1) + 1;
  const { rows } = await client.query<TypeColumns>(
    `INSERT INTO configuration_type (organization_id, device_type, defaults, schema, version, updated_by)
     VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (organization_id, device_type) DO UPDATE SET
       defaults = excluded.defaults, schema = excluded.schema, version = excluded.version,
       updated_at = now(), updated_by = excluded.updated_by
     RETURNING device_type, version, defaults, schema, updated_at, updated_by`,
    [organizationId, type, JSON.stringify(defaults), jsonOf(schema), number, actor],
  );
  await deps.writeAudit(orm, {
    organizationId,
    actor,
    action: 'configuration-type.update',
    subject: subjectOf(type),
    change: { version: number, defaults, schema },
  });
  return typeOf(rows[0] as TypeColumns);
}

async function deleteType(
  deps: TypeStoreDeps,
  transaction: Transaction,
  { organizationId, actor }: ConfigurationAuthor,
  type: string,
  version: number | null,
): Promise<void> {
  const { client, orm } = transaction;
  await holdTypes(transaction, organizationId);
  const before = await findType(transaction, organizationId, type);
  if (before === null) throw new ConfigurationTypeNotFoundError(type);
  assertVersion(before, version);
  await client.query(
    'DELETE FROM configuration_type WHERE organization_id = $1 AND device_type = $2',
    [organizationId, type],
  );
  const subject = subjectOf(type);
  const action = 'configuration-type.delete';
  await deps.writeAudit(orm, { organizationId, actor, action, subject });
}

/** One change at a time for each organization, so that versions and the count of types stay true. */
async function holdTypes({ client }: Transaction, organizationId: number): Promise<void> {
  const hold = 'SELECT FROM organization WHERE organization_id = $1 FOR NO KEY UPDATE';
  await client.query(hold, [organizationId]);
}

async function assertRoom(
  { client }: Transaction,
  organizationId: number,
  typesMax: number,
): Promise<void> {
  const { rows } = await client.query<{ types: number }>(
    'SELECT count(*)::int4 AS types FROM configuration_type WHERE organization_id = $1',
    [organizationId],
  );
  if ((rows[0]?.types ?? 0) >= typesMax) throw new ConfigurationTypeLimitError(typesMax);
}

function assertVersion(before: TypeConfiguration | null, asked: number | null): void {
  const version = before?.version ?? 0;
  if (asked !== null && asked !== version) throw new ConfigurationChangedError(asked, version);
}

/** Brings the devices of a type in line with what is committed; what fails here is done by the sweeper. */
async function renewType(
  { database, renewal, renewLater }: TypeStoreDeps,
  { organizationId }: ConfigurationAuthor,
  type: string,
): Promise<TypeEffect> {
  const untilMs = performance.now() + RENEW_MS_MAX;
  const scope = { organizationId, type, deviceIds: null };
  const renewed = await renewal.run(scope, () => performance.now() < untilMs).catch(() => null);
  const isComplete = renewed?.isComplete === true;
  if (!isComplete) renewLater();
  const { held, heldCount } = await findHeld(database, organizationId, type);
  return { changed: renewed?.changed ?? 0, isComplete, held, heldCount };
}

async function findHeld(
  database: TenantDatabase,
  organizationId: number,
  type: string,
): Promise<Pick<TypeEffect, 'held' | 'heldCount'>> {
  const { rows } = await inOrganization(database, organizationId, ({ client }) =>
    client.query<{ device: string; held: Held; total: number }>(
      `SELECT device.slug AS device, stored.held, count(*) OVER ()::int4 AS total
       FROM device_configuration AS stored
       JOIN device ON device.device_id = stored.device_id
       WHERE stored.organization_id = $1 AND device.organization_id = $1
         AND device.device_type = $2 AND stored.held IS NOT NULL
       ORDER BY device.slug LIMIT ${HELD_LISTED_MAX}`,
      [organizationId, type],
    ),
  );
  const held = rows.map((row) => ({ device: row.device, ...row.held }));
  return { held, heldCount: rows[0]?.total ?? 0 };
}

interface TypeColumns {
  device_type: string;
  version: number;
  defaults: Document;
  schema: Document | null;
  updated_at: Date;
  updated_by: string;
}

const TYPES = `SELECT device_type, version, defaults, schema, updated_at, updated_by
  FROM configuration_type WHERE organization_id = $1`;

async function findType(
  { client }: Transaction,
  organizationId: number,
  type: string,
): Promise<TypeConfiguration | null> {
  const text = `${TYPES} AND device_type = $2`;
  const { rows } = await client.query<TypeColumns>(text, [organizationId, type]);
  return rows[0] === undefined ? null : typeOf(rows[0]);
}

function typeOf(row: TypeColumns): TypeConfiguration {
  return {
    type: row.device_type,
    version: row.version,
    defaults: row.defaults,
    schema: row.schema,
    updatedAt: row.updated_at,
    updatedBy: row.updated_by,
  };
}

function jsonOf(schema: Document | null): string | null {
  return schema === null ? null : JSON.stringify(schema);
}

function subjectOf(type: string): string {
  return `device-type/${type}/configuration`;
}

import { cutPage, type Page } from '../drizzle/page.ts';
import type { Transaction } from '../drizzle/transaction.ts';
import { CommandDefinitionLimitError, CommandDefinitionNotFoundError } from '../command-errors.ts';
import { SYSTEM_COMMAND_PREFIX } from '../firmware-protocol/command.ts';
import type { CommandAuthor } from './command.ts';
import { DEFINED_SHOWN_MAX, type CommandDefinition, type WantedDefinition } from './definition.ts';

/** Which definitions a page shows. */
export interface DefinitionQuery {
  readonly organizationId: number;
  /** `any`: those for devices of any type. Null: all. */
  readonly types: { readonly deviceType: string | null } | null;
  readonly limit: number;
  /** The last one of the page before. */
  readonly after: { readonly deviceType: string | null; readonly name: string } | null;
}

/** Whose command it is: a device's, by its slug, or that of devices of a type. */
export type DefinitionSubject =
  { readonly device: string } | { readonly deviceType: string | null };

/** What was found of a command of a subject. */
export interface FoundDefinition {
  readonly deviceType: string | null;
  /** Whether the organization has any definition at all. */
  readonly hasAny: boolean;
  readonly definition: CommandDefinition | null;
  /** As in `AppliedDefinition`. */
  readonly defined: readonly string[];
}

const COLUMNS = `NULLIF(device_type, '') AS "deviceType", name, description, schema,
  needs_approval AS "needsApproval", is_retry_safe AS "isRetrySafe", ttl_ms::float8 AS "ttlMs",
  updated_at AS "updatedAt", updated_by AS "updatedBy"`;

/** One page, by type and name; those of any type first. */
export async function listDefinitions(
  { client }: Transaction,
  { organizationId, types, limit, after }: DefinitionQuery,
): Promise<Page<CommandDefinition>> {
  const { rows } = await client.query<CommandDefinition>(
    `SELECT ${COLUMNS} FROM command_definition
     WHERE organization_id = $1 AND ($2::text IS NULL OR device_type = $2)
       AND ($3::text IS NULL OR (device_type, command_definition.name) > ($3, $4))
     ORDER BY command_definition.device_type, command_definition.name LIMIT $5`,
    [
      organizationId,
      types === null ? null : (types.deviceType ?? ''),
      after === null ? null : (after.deviceType ?? ''),
      after?.name ?? null,
      limit + 1,
    ],
  );
  return cutPage(rows, limit);
}

/** @throws {CommandDefinitionNotFoundError} */
export async function getDefinition(
  { client }: Transaction,
  organizationId: number,
  deviceType: string | null,
  name: string,
): Promise<CommandDefinition> {
  const { rows } = await client.query<CommandDefinition>(
    `SELECT ${COLUMNS} FROM command_definition
     WHERE organization_id = $1 AND device_type = $2 AND name = $3`,
    [organizationId, deviceType ?? '', name],
  );
  const [found] = rows;
  if (found === undefined) throw new CommandDefinitionNotFoundError(name, deviceType);
  return found;
}

/** @throws {CommandDefinitionLimitError} */
export async function saveDefinition(
  transaction: Transaction,
  { organizationId, actor }: CommandAuthor,
  wanted: WantedDefinition,
  definitionsMax: number,
): Promise<{ definition: CommandDefinition; isNew: boolean }> {
  const { client } = transaction;
  // One at a time for each organization, so that the count stays true until COMMIT.
  await client.query('SELECT FROM organization WHERE organization_id = $1 FOR NO KEY UPDATE', [
    organizationId,
  ]);
  const { rows } = await client.query<{ others: number; isNew: boolean }>(
    `SELECT count(*) FILTER (WHERE NOT (device_type = $2 AND name = $3))::int4 AS others,
       count(*) FILTER (WHERE device_type = $2 AND name = $3) = 0 AS "isNew"
     FROM command_definition WHERE organization_id = $1`,
    [organizationId, wanted.deviceType ?? '', wanted.name],
  );
  const { others = 0, isNew = true } = rows[0] ?? {};
  if (isNew && others >= definitionsMax) throw new CommandDefinitionLimitError(definitionsMax);
  await client.query(
    `INSERT INTO command_definition (organization_id, device_type, name, description, schema,
       needs_approval, is_retry_safe, ttl_ms, updated_by)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
     ON CONFLICT (organization_id, device_type, name) DO UPDATE
     SET description = excluded.description, schema = excluded.schema,
       needs_approval = excluded.needs_approval, is_retry_safe = excluded.is_retry_safe,
       ttl_ms = excluded.ttl_ms, updated_at = now(), updated_by = excluded.updated_by`,
    [
      organizationId,
      wanted.deviceType ?? '',
      wanted.name,
      wanted.description,
      JSON.stringify(wanted.schema),
      wanted.needsApproval,
      wanted.isRetrySafe,
      wanted.ttlMs,
      actor,
    ],
  );
  const definition = await getDefinition(
    transaction,
    organizationId,
    wanted.deviceType,
    wanted.name,
  );
  return { definition, isNew };
}

/** What applies to a command; null: there is no such device. */
export async function findApplied(
  { client }: Transaction,
  organizationId: number,
  name: string,
  subject: DefinitionSubject,
): Promise<FoundDefinition | null> {
  const isDevice = 'device' in subject;
  const { rows } = await client.query<FoundRow>(
    `SELECT subject.device_type AS "of", found.*,
       EXISTS (SELECT FROM command_definition WHERE organization_id = $1) AS "hasAny",
       CASE WHEN found.name IS NULL THEN ARRAY(
         SELECT others.name FROM command_definition others
         WHERE others.organization_id = $1 AND others.device_type = subject.device_type
           AND NOT starts_with(others.name, '${SYSTEM_COMMAND_PREFIX}')
         ORDER BY others.name LIMIT ${DEFINED_SHOWN_MAX}) ELSE '{}' END AS defined
     FROM (${isDevice ? DEVICE_SUBJECT : 'SELECT $3::text AS device_type'}) subject
     LEFT JOIN LATERAL (
       SELECT ${COLUMNS} FROM command_definition
       WHERE organization_id = $1 AND name = $2
         AND (device_type = '' OR device_type = subject.device_type)
       ORDER BY command_definition.device_type DESC LIMIT 1) found ON true`,
    [organizationId, name, isDevice ? subject.device : subject.deviceType],
  );
  const [row] = rows;
  if (row === undefined) return null;
  const { of, hasAny, defined, ...definition } = row;
  return { deviceType: of, hasAny, defined, definition: isFound(definition) ? definition : null };
}

const DEVICE_SUBJECT = 'SELECT device_type FROM device WHERE organization_id = $1 AND slug = $3';

/** The outer join has nulls where nothing was found. */
type FoundRow = (CommandDefinition | { readonly [Member in keyof CommandDefinition]: null }) & {
  readonly of: string | null;
  readonly hasAny: boolean;
  readonly defined: readonly string[];
};

function isFound(
  row: CommandDefinition | { readonly [Member in keyof CommandDefinition]: null },
): row is CommandDefinition {
  return row.name !== null;
}

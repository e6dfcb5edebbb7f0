import pg from 'pg';
import { cutPage, type Page } from '../drizzle/page.ts';
import type { Transaction } from '../drizzle/transaction.ts';
import { makeUuidV7 } from '../drizzle/uuid-v7.ts';
import { RuleExistsError, RuleLimitError } from '../rule-errors.ts';
import type { RuleAuthor } from './audit.ts';
import { saysTheSame, type CheckedRule } from './rule-check.ts';
import {
  getRule,
  RULE_COLUMNS,
  RULE_TABLES,
  ruleOf,
  type RuleDatabaseRow,
  type RuleJson,
  type RuleVersion,
  type StoredRule,
} from './rule-row.ts';
import type { RuleMode } from './rule.ts';

/** Which rules a page shows, in the order of their names. */
export interface RuleQuery {
  readonly organizationId: number;
  /** Null: of every mode. */
  readonly mode: RuleMode | null;
  readonly limit: number;
  /** Name of the last rule of the page before. */
  readonly after: string | null;
}

/** Which versions a page shows, newest first. */
export interface VersionQuery {
  readonly organizationId: number;
  /** Key inside. */
  readonly ruleId: number;
  readonly limit: number;
  /** Only those below it. */
  readonly before: number | null;
}

/** A page of rules. */
export async function listRules(
  { client }: Transaction,
  { organizationId, mode, limit, after }: RuleQuery,
): Promise<Page<StoredRule>> {
  const { rows } = await client.query<RuleDatabaseRow>(
    `SELECT ${RULE_COLUMNS} FROM ${RULE_TABLES}
     WHERE rule.organization_id = $1 AND rule.deleted_at IS NULL
       AND ($2::text IS NULL OR rule.mode = $2) AND ($3::text IS NULL OR rule.name > $3)
     ORDER BY rule.name LIMIT $4`,
    [organizationId, mode, after, limit + 1],
  );
  return cutPage(rows.map(ruleOf), limit);
}

/** Writes a new rule with its first version. @throws {RuleExistsError} @throws {RuleLimitError} */
export async function insertRule(
  transaction: Transaction,
  author: RuleAuthor,
  { definition: { name, mode }, stored }: CheckedRule,
  rulesMax: number,
): Promise<StoredRule> {
  const { client } = transaction;
  const { organizationId } = author;
  // One at a time for each organization, so that the count stays true until COMMIT.
  await client.query('SELECT FROM organization WHERE organization_id = $1 FOR NO KEY UPDATE', [
    organizationId,
  ]);
  const { rows: counted } = await client.query<{ rules: number }>(
    `SELECT count(*)::int4 AS rules FROM alert_rule
     WHERE organization_id = $1 AND deleted_at IS NULL`,
    [organizationId],
  );
  const publicId = makeUuidV7(Date.now());
  const { rows } = await client.query<{ rule_id: number }>(
    `INSERT INTO alert_rule (public_id, organization_id, name, mode, version, revision)
     VALUES ($1, $2, $3, $4, 1, 0) ON CONFLICT DO NOTHING RETURNING rule_id`,
    [publicId, organizationId, name, mode],
  );
  const [row] = rows;
  if (row === undefined) throw new RuleExistsError(name);
  if ((counted[0]?.rules ?? 0) >= rulesMax) throw new RuleLimitError(rulesMax);
  await insertVersion(transaction, author, { ruleId: row.rule_id, version: 1, stored });
  return getRule(transaction, organizationId, publicId);
}

/**
 * Puts what a locked rule says from now on in force, as a new version unless it says so already, and ends
 * its suspension. @param mode null leaves it. @throws {RuleExistsError} of another rule's name.
 */
export async function saveVersion(
  transaction: Transaction,
  author: RuleAuthor,
  before: StoredRule,
  { definition, stored, mode }: CheckedRule & { readonly mode: RuleMode | null },
): Promise<StoredRule> {
  const { organizationId } = author;
  const { ruleId, publicId } = before;
  const isNew = !saysTheSame(stored, before.definition);
  const version = before.version + (isNew ? 1 : 0);
  if (isNew) await insertVersion(transaction, author, { ruleId, version, stored });
  try {
    await transaction.client.query(
      `UPDATE alert_rule SET name = $3, mode = $4, version = $5, updated_at = now(),
         suspended_at = NULL, suspended_reason = NULL
       WHERE organization_id = $1 AND rule_id = $2`,
      [organizationId, ruleId, definition.name, mode ?? before.mode, version],
    );
  } catch (error) {
    const isTaken = error instanceof pg.DatabaseError && error.code === '23505';
    throw isTaken ? new RuleExistsError(definition.name) : error;
  }
  return getRule(transaction, organizationId, publicId);
}

async function insertVersion(
  { client }: Transaction,
  { organizationId, actor }: RuleAuthor,
  { ruleId, version, stored }: { ruleId: number; version: number; stored: RuleJson },
): Promise<void> {
  await client.query(
    `INSERT INTO alert_rule_version (rule_id, version, organization_id, definition, created_by)
     VALUES ($1, $2, $3, $4, $5)`,
    [ruleId, version, organizationId, JSON.stringify(stored), actor],
  );
}

/** A page of versions. */
export async function listVersions(
  { client }: Transaction,
  { organizationId, ruleId, limit, before }: VersionQuery,
): Promise<Page<RuleVersion>> {
  const { rows } = await client.query<{
    version: number;
    definition: RuleJson;
    created_at: Date;
    created_by: string;
  }>(
    `SELECT version, definition, created_at, created_by FROM alert_rule_version
     WHERE organization_id = $1 AND rule_id = $2 AND ($3::int4 IS NULL OR version < $3)
     ORDER BY version DESC LIMIT $4`,
    [organizationId, ruleId, before, limit + 1],
  );
  const versions = rows.map((row) => ({
    version: row.version,
    definition: row.definition,
    createdAt: row.created_at,
    createdBy: row.created_by,
  }));
  return cutPage(versions, limit);
}

import type { Transaction } from '../drizzle/transaction.ts';
import { RuleNotFoundError } from '../rule-errors.ts';
import type { RuleMode } from './rule.ts';

/** What a rule says, as the API writes it; without its mode, which is not part of a version. */
export type RuleJson = Readonly<Record<string, unknown>>;

/** A rule as people see it. */
export interface StoredRule {
  /** Key inside. */
  readonly ruleId: number;
  /** The one of the API. */
  readonly publicId: string;
  readonly name: string;
  readonly mode: RuleMode;
  /** The one in force. */
  readonly version: number;
  readonly definition: RuleJson;
  readonly createdAt: Date;
  readonly updatedAt: Date;
  /** Since when the program has stopped evaluating it; null: it has not. */
  readonly suspendedAt: Date | null;
  readonly suspendedReason: string | null;
}

/** What a rule said once. */
export interface RuleVersion {
  readonly version: number;
  readonly definition: RuleJson;
  readonly createdAt: Date;
  /** Public id of the key that asked for it. */
  readonly createdBy: string;
}

/** A row as {@link RULE_COLUMNS} gives it. */
export interface RuleDatabaseRow {
  rule_id: number;
  public_id: string;
  name: string;
  mode: RuleMode;
  version: number;
  definition: RuleJson;
  created_at: Date;
  updated_at: Date;
  suspended_at: Date | null;
  suspended_reason: string | null;
}

/** Columns of a rule with what it says; of {@link RULE_TABLES}. */
export const RULE_COLUMNS = `rule.rule_id, rule.public_id, rule.name, rule.mode, rule.version,
  said.definition, rule.created_at, rule.updated_at, rule.suspended_at, rule.suspended_reason`;

/** A rule and the version of it that is in force. */
export const RULE_TABLES = `alert_rule AS rule
  JOIN alert_rule_version AS said ON said.rule_id = rule.rule_id AND said.version = rule.version`;

/** The rule of a row. */
export function ruleOf(row: RuleDatabaseRow): StoredRule {
  return {
    ruleId: row.rule_id,
    publicId: row.public_id,
    name: row.name,
    mode: row.mode,
    version: row.version,
    definition: row.definition,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    suspendedAt: row.suspended_at,
    suspendedReason: row.suspended_reason,
  };
}

/**
 * A rule of an organization that is not deleted.
 * @param isLocked holds the row until the transaction ends.
 * @throws {RuleNotFoundError}
 */
export async function getRule(
  { client }: Transaction,
  organizationId: number,
  publicId: string,
  isLocked = false,
): Promise<StoredRule> {
  const values = [organizationId, publicId];
  // A statement of its own: one that waits for a lock would still join the version of before.
  if (isLocked) {
    await client.query(
      'SELECT FROM alert_rule WHERE organization_id = $1 AND public_id = $2 FOR UPDATE',
      values,
    );
  }
  const { rows } = await client.query<RuleDatabaseRow>(
    `SELECT ${RULE_COLUMNS} FROM ${RULE_TABLES}
     WHERE rule.organization_id = $1 AND rule.public_id = $2 AND rule.deleted_at IS NULL`,
    values,
  );
  const [row] = rows;
  if (row === undefined) throw new RuleNotFoundError(publicId);
  return ruleOf(row);
}

import { guardStore } from '../drizzle/sqlstate.ts';
import type { TenantDatabase } from '../drizzle/transaction.ts';
import { reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { RuleToCompile } from './compile.ts';
import type { GoneReason } from './evaluation/evaluator-deps.ts';
import { readStored } from './rule-check.ts';
import type { RuleJson } from './rule-row.ts';
import type { RuleMode } from './rule.ts';

/** A rule as it is after a change. */
export interface ChangedRule {
  readonly ruleId: number;
  readonly revision: number;
  /** Null when it is not to be evaluated, or cannot be read. */
  readonly rule: RuleToCompile | null;
  /** Why it is not to be evaluated. */
  readonly goneReason: GoneReason;
}

/** What has changed of the rules of all organizations. */
export interface RuleChanges {
  readonly rules: readonly ChangedRule[];
  /** Rules that there are, deleted ones too, and the sum of their revisions: by them a reader sees what it missed. */
  readonly count: number;
  readonly revisionSum: number;
  /** Organizations that are suspended: their rules are not to be evaluated. */
  readonly suspendedOrganizations: readonly number[];
}

/** What a reader knows already. */
export interface KnownRules {
  /** Rules of later revisions are read. */
  readonly revision: number;
  /** Revision of each rule that was read. */
  readonly revisions: ReadonlyMap<number, number>;
}

interface ChangedRow {
  rule_id: number | null;
  revision: number;
  public_id: string;
  organization_id: number;
  version: number;
  mode: RuleMode;
  is_deleted: boolean;
  is_suspended: boolean;
  /** Null of a rule that is not to be evaluated. */
  definition: RuleJson | null;
}

interface TotalRow {
  count: number;
  revision_sum: number;
  suspended: number[];
}

/** One statement, so that all of it is of one moment. */
const CHANGES = `
  SELECT total.*, changed.* FROM (
    SELECT count(*)::int4 AS count, coalesce(sum(revision), 0)::float8 AS revision_sum,
      ARRAY(SELECT organization_id FROM organization WHERE suspended_at IS NOT NULL
            ORDER BY organization_id) AS suspended
    FROM alert_rule
  ) AS total LEFT JOIN (
    SELECT rule.rule_id, rule.revision::float8 AS revision, rule.public_id, rule.organization_id,
      rule.version, rule.mode, rule.deleted_at IS NOT NULL AS is_deleted,
      rule.suspended_at IS NOT NULL AS is_suspended,
      (SELECT said.definition FROM alert_rule_version AS said
       WHERE said.rule_id = rule.rule_id AND said.version = rule.version
         AND rule.deleted_at IS NULL AND rule.suspended_at IS NULL AND rule.mode <> 'disabled')
        AS definition
    FROM alert_rule AS rule WHERE rule.revision > $1
  ) AS changed ON true
  ORDER BY changed.rule_id`;

/**
 * The rules of all organizations that have changed, by key. A change may commit later than another one that
 * took a higher revision: then the sum tells. One that this program cannot read is logged.
 * @throws {StoreUnavailableError}
 */
export async function readRuleChanges(
  { pool }: TenantDatabase,
  { revision, revisions }: KnownRules,
  log: Logger,
): Promise<RuleChanges> {
  const { rows } = await guardStore(pool.query<TotalRow & ChangedRow>(CHANGES, [revision]));
  const [total] = rows;
  const rules: ChangedRule[] = [];
  for (const row of rows) {
    if (row.rule_id === null || revisions.get(row.rule_id) === row.revision) continue;
    rules.push(changedOf({ ...row, rule_id: row.rule_id }, log));
  }
  return {
    rules,
    count: total?.count ?? 0,
    revisionSum: total?.revision_sum ?? 0,
    suspendedOrganizations: total?.suspended ?? [],
  };
}

function changedOf(row: ChangedRow & { readonly rule_id: number }, log: Logger): ChangedRule {
  const { rule_id: ruleId, revision } = row;
  return { ruleId, revision, rule: activeOf(row, log), goneReason: goneReasonOf(row) };
}

function goneReasonOf({
  is_deleted: isDeleted,
  is_suspended: isSuspended,
}: ChangedRow): GoneReason {
  if (isDeleted) return 'rule_deleted';
  return isSuspended ? 'rule_suspended' : 'rule_disabled';
}

function activeOf(
  row: ChangedRow & { readonly rule_id: number },
  log: Logger,
): RuleToCompile | null {
  const { rule_id: ruleId, mode, version } = row;
  if (row.definition === null || mode === 'disabled') return null;
  const { public_id: publicId, organization_id: organizationId } = row;
  try {
    const definition = readStored(row.definition, mode);
    return { ruleId, publicId, organizationId, version, mode, definition };
  } catch (error) {
    log.error({ ruleId, reason: reasonOf(error) }, 'rule cannot be read, left out');
    return null;
  }
}

import type { Page } from '../drizzle/page.ts';
import {
  inOrganization,
  inTransaction,
  type TenantDatabase,
  type Transaction,
} from '../drizzle/transaction.ts';
import type { Logger } from '../log.ts';
import { RuleChangedError, RuleVersionNotFoundError } from '../rule-errors.ts';
import { readRuleChanges, type KnownRules, type RuleChanges } from './active-rules.ts';
import type { RuleAuthor, WriteAudit } from './audit.ts';
import { checkRule, readStored, type CheckedRule } from './rule-check.ts';
import { getRule, type RuleJson, type RuleVersion, type StoredRule } from './rule-row.ts';
import {
  insertRule,
  listRules,
  listVersions,
  saveVersion,
  type RuleQuery,
  type VersionQuery,
} from './rule-statements.ts';
import type { RuleDefinition, RuleMode } from './rule.ts';

/** A rule that was saved, with what may be a slip of who wrote it. */
export interface SavedRule {
  readonly rule: StoredRule;
  readonly warnings: readonly string[];
}

/** A change of a rule. */
export interface RuleEdit {
  /** Members as the API has them; those that are left out stay, null gives a member its default. */
  readonly change: RuleJson;
  /** Version that the change was made for; null: whichever there is. */
  readonly version: number | null;
}

/** What {@link createRuleStore} needs. */
export interface RuleStoreDeps {
  readonly database: TenantDatabase;
  readonly writeAudit: WriteAudit;
  /** Most rules of one organization. */
  readonly rulesMax: number;
  readonly log: Logger;
  /** Told after COMMIT of each change; when it resolves the change is in force here. Never rejects. */
  readonly onChanged?: (() => void | Promise<void>) | undefined;
  /**
   * Asked before a rule with a noise budget is enabled, or changed while it is; throws to refuse it.
   * `publicId` is null of a new rule.
   */
  readonly beforeEnable?:
    | ((organizationId: number, publicId: string | null, rule: RuleDefinition) => Promise<void>)
    | undefined;
}

const REASON_CHARS_MAX = 500;

/** Makes the store of rules. */
export function createRuleStore(deps: RuleStoreDeps): RuleStore {
  return new RuleStore(deps);
}

/**
 * The rules of all organizations. What a rule says is a version: every change of it makes a new one, and
 * old ones stay. Its mode is not part of a version. All throw {@link StoreUnavailableError}.
 */
export class RuleStore {
  readonly #deps: RuleStoreDeps;

  constructor(deps: RuleStoreDeps) {
    this.#deps = deps;
  }

  /** One page, in the order of names. */
  list(query: RuleQuery): Promise<Page<StoredRule>> {
    return this.#within(query.organizationId, (transaction) => listRules(transaction, query));
  }

  /** @throws {RuleNotFoundError} */
  get(organizationId: number, publicId: string): Promise<StoredRule> {
    return this.#within(organizationId, (transaction) =>
      getRule(transaction, organizationId, publicId),
    );
  }

  /** Checks a rule without saving it. @throws {RuleInvalidError} */
  check(organizationId: number, draft: unknown): Promise<CheckedRule> {
    return this.#within(organizationId, (transaction) =>
      checkRule(transaction, organizationId, draft),
    );
  }

  /** @throws {RuleInvalidError} @throws {RuleExistsError} @throws {RuleLimitError} */
  async create(author: RuleAuthor, draft: unknown): Promise<SavedRule> {
    const { organizationId } = author;
    const checked = await this.check(organizationId, draft);
    await this.#assertQuiet(organizationId, null, checked.definition);
    const rule = await this.#within(organizationId, async (transaction) => {
      const made = await insertRule(transaction, author, checked, this.#deps.rulesMax);
      await this.#audit(transaction, author, 'create', made);
      return made;
    });
    await this.#deps.onChanged?.();
    return { rule, warnings: checked.warnings };
  }

  /**
   * Changes what a rule says. What is said already makes no new version. A suspended rule is evaluated
   * again.
   * @throws {RuleNotFoundError} @throws {RuleInvalidError} @throws {RuleExistsError}
   * @throws {RuleChangedError} of another version, or when somebody else was faster.
   */
  async update(
    author: RuleAuthor,
    publicId: string,
    { change, version }: RuleEdit,
  ): Promise<SavedRule> {
    const { organizationId } = author;
    const before = await this.get(organizationId, publicId);
    assertVersion(before, version);
    const draft = merge({ ...before.definition, mode: before.mode }, change);
    const checked = await this.check(organizationId, draft);
    await this.#assertQuiet(organizationId, publicId, checked.definition);
    const mode = change['mode'] === undefined ? null : checked.definition.mode;
    const rule = await this.#within(organizationId, async (transaction) => {
      const locked = await getRule(transaction, organizationId, publicId, true);
      // What was checked would undo what somebody else has changed meanwhile.
      assertVersion(locked, before.version);
      const made = await saveVersion(transaction, author, locked, { ...checked, mode });
      await this.#audit(transaction, author, 'update', made);
      return made;
    });
    await this.#deps.onChanged?.();
    return { rule, warnings: checked.warnings };
  }

  /** Makes no version. A suspended rule is evaluated again, unless disabled. @throws {RuleNotFoundError} */
  async setMode(author: RuleAuthor, publicId: string, mode: RuleMode): Promise<StoredRule> {
    const { organizationId } = author;
    if (mode === 'enabled') {
      const { definition } = await this.get(organizationId, publicId);
      await this.#assertQuiet(organizationId, publicId, readStored(definition, mode));
    }
    const rule = await this.#within(organizationId, async (transaction) => {
      await getRule(transaction, organizationId, publicId, true);
      await transaction.client.query(
        `UPDATE alert_rule
         SET mode = $3, updated_at = now(), suspended_at = NULL, suspended_reason = NULL
         WHERE organization_id = $1 AND public_id = $2`,
        [organizationId, publicId, mode],
      );
      const made = await getRule(transaction, organizationId, publicId);
      await this.#audit(transaction, author, 'mode', made);
      return made;
    });
    await this.#deps.onChanged?.();
    return rule;
  }

  /** Its versions and alerts stay, and its name is free again. @throws {RuleNotFoundError} */
  async remove(author: RuleAuthor, publicId: string): Promise<void> {
    const { organizationId } = author;
    await this.#within(organizationId, async (transaction) => {
      const rule = await getRule(transaction, organizationId, publicId, true);
      await transaction.client.query(
        `UPDATE alert_rule SET deleted_at = now(), updated_at = now()
         WHERE organization_id = $1 AND rule_id = $2`,
        [organizationId, rule.ruleId],
      );
      await this.#audit(transaction, author, 'delete', rule);
    });
    await this.#deps.onChanged?.();
  }

  /** Newest first, those below `before`. @throws {RuleNotFoundError} */
  versions({
    publicId,
    ...query
  }: Omit<VersionQuery, 'ruleId'> & { readonly publicId: string }): Promise<Page<RuleVersion>> {
    return this.#within(query.organizationId, async (transaction) => {
      const { ruleId } = await getRule(transaction, query.organizationId, publicId);
      return listVersions(transaction, { ...query, ruleId });
    });
  }

  /** @throws {RuleNotFoundError} @throws {RuleVersionNotFoundError} */
  async version(organizationId: number, publicId: string, version: number): Promise<RuleVersion> {
    const query = { organizationId, publicId, limit: 1, before: version + 1 };
    const [found] = (await this.versions(query)).rows;
    if (found?.version !== version) throw new RuleVersionNotFoundError(publicId, version);
    return found;
  }

  /** See {@link readRuleChanges}. */
  changes(known: KnownRules): Promise<RuleChanges> {
    return readRuleChanges(this.#deps.database, known, this.#deps.log);
  }

  /** Ends the evaluation of a rule, by its key inside, until people set its mode or change it. */
  async suspend(ruleId: number, reason: string): Promise<void> {
    const isDone = await inTransaction(this.#deps.database.pool, async (transaction) => {
      const { rows } = await transaction.client.query<{
        organization_id: number;
        public_id: string;
      }>(
        `UPDATE alert_rule SET suspended_at = now(), suspended_reason = $2
         WHERE rule_id = $1 AND suspended_at IS NULL AND deleted_at IS NULL
         RETURNING organization_id, public_id`,
        [ruleId, reason.slice(0, REASON_CHARS_MAX)],
      );
      const [row] = rows;
      if (row === undefined) return false;
      const author = { organizationId: row.organization_id, actor: 'puback' };
      const rule = await getRule(transaction, author.organizationId, row.public_id);
      await this.#audit(transaction, author, 'suspend', rule);
      return true;
    });
    if (isDone) await this.#deps.onChanged?.();
  }

  #within<T>(organizationId: number, work: (transaction: Transaction) => Promise<T>): Promise<T> {
    return inOrganization(this.#deps.database, organizationId, work);
  }

  async #assertQuiet(
    organizationId: number,
    publicId: string | null,
    rule: RuleDefinition,
  ): Promise<void> {
    if (rule.mode !== 'enabled' || rule.noiseBudgetPerDay === null) return;
    await this.#deps.beforeEnable?.(organizationId, publicId, rule);
  }

  #audit({ orm }: Transaction, author: RuleAuthor, verb: string, rule: StoredRule): Promise<void> {
    const { publicId, name, version, mode, suspendedReason } = rule;
    return this.#deps.writeAudit(orm, {
      ...author,
      action: `rule.${verb}`,
      subject: `rule/${publicId}`,
      change: { name, version, mode, suspendedReason },
    });
  }
}

function assertVersion(rule: StoredRule, version: number | null): void {
  if (version !== null && rule.version !== version)
    throw new RuleChangedError(version, rule.version);
}

function merge(before: RuleJson, change: RuleJson): RuleJson {
  const entries = Object.entries({ ...before, ...change });
  return Object.fromEntries(entries.filter(([, value]) => value !== null && value !== undefined));
}

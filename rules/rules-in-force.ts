import { reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { ChangedRule, RuleChanges } from './active-rules.ts';
import { compileRule, type RuleToCompile } from './compile.ts';
import type { CompiledRule } from './compiled-rule.ts';
import type { ConditionCounters } from './condition/operator.ts';
import type { GoneReason } from './evaluation/evaluator-deps.ts';
import type { RuleStore } from './rule-store.ts';

/** What {@link RulesInForce} needs. */
export interface RulesInForceDeps {
  readonly rules: Pick<RuleStore, 'changes'>;
  /** See `compileRule`. */
  readonly windowSamplesMax: number;
  readonly counters: ConditionCounters;
  readonly log: Logger;
}

/**
 * The rules of all organizations that are to be evaluated, compiled. One that has not changed stays the
 * same object, so that nothing of it begins anew. What has not changed is not read again.
 */
export class RulesInForce {
  readonly #deps: RulesInForceDeps;
  readonly #compiled = new Map<number, CompiledRule>();
  /** Of every rule that was read, evaluated or not. */
  readonly #revisions = new Map<number, number>();
  readonly #goneReasons = new Map<number, GoneReason>();
  #suspendedOrganizations: ReadonlySet<number> = new Set();
  #all: readonly CompiledRule[] = [];
  #byOrganization: ReadonlyMap<number, readonly CompiledRule[]> = new Map();
  #revision = 0;
  #revisionSum = 0;
  #isChanged = false;
  #reading: Promise<boolean> = Promise.resolve(false);
  /** A read that has not begun yet. */
  #next: Promise<boolean> | null = null;

  constructor(deps: RulesInForceDeps) {
    this.#deps = deps;
  }

  /** All of them, by key; the same array while nothing has changed. */
  get all(): readonly CompiledRule[] {
    return this.#all;
  }

  /** Those of an organization. */
  of(organizationId: number): readonly CompiledRule[] {
    return this.#byOrganization.get(organizationId) ?? [];
  }

  /** Why a rule that was among them is no longer. */
  goneReason(ruleId: number): GoneReason {
    const isEvaluated = this.#compiled.has(ruleId);
    // Then its organization is suspended.
    return isEvaluated ? 'rule_suspended' : (this.#goneReasons.get(ruleId) ?? 'rule_deleted');
  }

  /**
   * Reads what has changed, behind a read that is under way; who asks meanwhile shares it.
   * @returns whether anything has. @throws {StoreUnavailableError}
   */
  refresh(): Promise<boolean> {
    if (this.#next !== null) return this.#next;
    const read = (): Promise<boolean> => {
      this.#next = null;
      return this.#read();
    };
    this.#next = this.#reading.then(read, read);
    this.#reading = this.#next;
    return this.#next;
  }

  /** An organization is suspended; the next {@link refresh} finds whether it still is. */
  suspendOrganization(organizationId: number): void {
    this.#suspendOrganizations([...this.#suspendedOrganizations, organizationId]);
    this.#arrange();
  }

  async #read(): Promise<boolean> {
    let changes = await this.#readBehind(this.#revision);
    // Something has committed late.
    if (this.#hasMissed(changes)) changes = await this.#readBehind(0);
    if (this.#hasMissed(changes)) {
      // Rules are gone without a trace.
      this.#revisions.clear();
      this.#revisionSum = 0;
      changes = await this.#readBehind(0);
      this.#dropUnread();
    }
    this.#suspendOrganizations(changes.suspendedOrganizations);
    if (!this.#isChanged) return false;
    this.#isChanged = false;
    this.#arrange();
    return true;
  }

  async #readBehind(revision: number): Promise<RuleChanges> {
    const changes = await this.#deps.rules.changes({ revision, revisions: this.#revisions });
    for (const changed of changes.rules) this.#take(changed);
    return changes;
  }

  #hasMissed({ count, revisionSum }: RuleChanges): boolean {
    return count !== this.#revisions.size || revisionSum !== this.#revisionSum;
  }

  #take({ ruleId, revision, rule, goneReason }: ChangedRule): void {
    this.#revisionSum += revision - (this.#revisions.get(ruleId) ?? 0);
    this.#revisions.set(ruleId, revision);
    this.#revision = Math.max(this.#revision, revision);
    if (rule !== null || goneReason === 'rule_deleted') this.#goneReasons.delete(ruleId);
    else this.#goneReasons.set(ruleId, goneReason);
    const before = this.#compiled.get(ruleId) ?? null;
    const isSame = before !== null && before.version === rule?.version && before.mode === rule.mode;
    if (!isSame) this.#put(ruleId, rule === null ? null : this.#compile(rule));
  }

  #put(ruleId: number, rule: CompiledRule | null): void {
    if (rule === null) this.#isChanged = this.#compiled.delete(ruleId) || this.#isChanged;
    else {
      this.#compiled.set(ruleId, rule);
      this.#isChanged = true;
    }
  }

  #dropUnread(): void {
    for (const ruleId of this.#compiled.keys()) {
      if (!this.#revisions.has(ruleId)) this.#put(ruleId, null);
    }
    for (const ruleId of this.#goneReasons.keys()) {
      if (!this.#revisions.has(ruleId)) this.#goneReasons.delete(ruleId);
    }
  }

  #suspendOrganizations(organizationIds: readonly number[]): void {
    const before = this.#suspendedOrganizations;
    const now = new Set(organizationIds);
    if (before.size === now.size && organizationIds.every((id) => before.has(id))) return;
    this.#suspendedOrganizations = now;
    this.#isChanged = true;
  }

  #arrange(): void {
    this.#all = [...this.#compiled.values()]
      .filter(({ organizationId }) => !this.#suspendedOrganizations.has(organizationId))
      .sort((one, other) => one.ruleId - other.ruleId);
    this.#byOrganization = byOrganization(this.#all);
  }

  #compile(row: RuleToCompile): CompiledRule | null {
    const { windowSamplesMax, counters, log } = this.#deps;
    try {
      return compileRule(row, { windowSamplesMax, counters });
    } catch (err) {
      log.error({ err: reasonOf(err), ruleId: row.ruleId }, 'rule cannot be compiled, left out');
      return null;
    }
  }
}

function byOrganization(rules: readonly CompiledRule[]): Map<number, CompiledRule[]> {
  const grouped = new Map<number, CompiledRule[]>();
  for (const rule of rules) {
    const known = grouped.get(rule.organizationId);
    if (known === undefined) grouped.set(rule.organizationId, [rule]);
    else known.push(rule);
  }
  return grouped;
}

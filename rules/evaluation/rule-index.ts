import type { CompiledRule, FleetValues } from '../compiled-rule.ts';
import type { RuleDevice } from './device-load.ts';
import { FleetNewest } from './fleet-values.ts';
import { prepareRule } from './prepared-rule.ts';
import type { RuleScope } from '../rule.ts';

/** What is looked at of a metric. */
interface WantedHistory {
  historyMicros: number;
  historySamples: number;
}

/** Whether a rule is for a device: it must match every member of the scope. */
export function isInScope({ devices, tags, types }: RuleScope, device: RuleDevice): boolean {
  if (devices !== undefined && !devices.includes(device.slug)) return false;
  if (tags !== undefined && !tags.some((tag) => device.tags.includes(tag))) return false;
  return types === undefined || (device.type !== null && types.includes(device.type));
}

/** The rules of one organization, by what they look at. Replaced as a whole when one of them changes. */
export class OrganizationRules {
  readonly organizationId: number;
  readonly rules: readonly CompiledRule[];
  /** What devices are loaded with: the metrics of all rules. */
  readonly metrics: ReadonlyMap<string, Readonly<WantedHistory>>;
  /** Names of events that rules wait for, with the longest time that one may hold. */
  readonly events: ReadonlyMap<string, number>;
  readonly usesConnection: boolean;
  /** Metrics of rules that evaluate late readings later on. */
  readonly reEvaluated: ReadonlySet<string>;
  /** Whether time alone may change a verdict: then all devices in scope are kept in memory. */
  readonly isOfTime: boolean;
  readonly fleet: FleetNewest;

  constructor(
    organizationId: number,
    rules: readonly CompiledRule[],
    before: OrganizationRules | null = null,
  ) {
    this.organizationId = organizationId;
    this.rules = rules;
    const compared = rules.flatMap(fleetComparisons);
    this.fleet = new FleetNewest(compared, before?.fleet ?? null);
    // The same while they say the same: a load under way is good for other rules too then.
    this.metrics = keptWhenSame(wantedMetrics(rules, compared), before?.metrics, isSameHistory);
    this.events = keptWhenSame(wantedEvents(rules), before?.events, Object.is);
    this.usesConnection = rules.some((rule) => rule.usesConnection);
    const isReEvaluated = ({ definition }: CompiledRule): boolean =>
      definition.late === 're-evaluate';
    this.reEvaluated = new Set(rules.filter(isReEvaluated).flatMap(({ metrics }) => metrics));
    this.isOfTime = rules.some(isOfTime);
  }

  /** The rules that are for a device. */
  of(device: RuleDevice): CompiledRule[] {
    return this.rules.filter(({ definition }) => isInScope(definition.scope, device));
  }
}

/** The rules that are evaluated, by organization. */
export class RuleIndex {
  #organizations = new Map<number, OrganizationRules>();
  #ruleCount = 0;
  #latenessMicros = 0;

  /** Rules in all. */
  get ruleCount(): number {
    return this.#ruleCount;
  }

  /** The longest `allowedLateness`, in microseconds. */
  get latenessMicros(): number {
    return this.#latenessMicros;
  }

  /** The rules of an organization; empty of one that has none. */
  of(organizationId: number): OrganizationRules {
    let found = this.#organizations.get(organizationId);
    if (found === undefined) {
      found = new OrganizationRules(organizationId, []);
      this.#organizations.set(organizationId, found);
    }
    return found;
  }

  /**
   * Exchanges all rules. A rule that is the same as before (id, version and mode) stays the very object
   * that it was.
   * @returns the organizations in which something has changed.
   */
  replace(rules: readonly CompiledRule[]): Set<number> {
    const before = new Map(
      [...this.#organizations.values()].flatMap((each) =>
        each.rules.map((rule) => [rule.ruleId, rule]),
      ),
    );
    const grouped = new Map<number, CompiledRule[]>();
    for (const organizationId of this.#organizations.keys()) grouped.set(organizationId, []);
    for (const rule of rules) {
      const known = before.get(rule.ruleId);
      const kept = known !== undefined && isSameRule(known, rule) ? known : rule;
      const group = grouped.get(rule.organizationId);
      if (group === undefined) grouped.set(rule.organizationId, [kept]);
      else group.push(kept);
    }
    this.#ruleCount = rules.length;
    this.#latenessMicros = rules.reduce(
      (longest, { definition }) => Math.max(longest, definition.allowedLatenessMicros),
      0,
    );
    const changed = new Set<number>();
    for (const [organizationId, group] of grouped) {
      const known = this.#organizations.get(organizationId) ?? null;
      if (isSameList(known?.rules ?? [], group)) continue;
      this.#organizations.set(organizationId, new OrganizationRules(organizationId, group, known));
      changed.add(organizationId);
    }
    return changed;
  }

  /** What rules of all organizations look at, for devices whose organization is not known yet. */
  ofAll(): Pick<OrganizationRules, 'metrics' | 'events'> {
    const rules = [...this.#organizations.values()].flatMap((each) => each.rules);
    const compared = rules.flatMap(fleetComparisons);
    return { metrics: wantedMetrics(rules, compared), events: wantedEvents(rules) };
  }
}

/** Whether two lists have the same members in the same order. */
export function isSameList<Item>(one: readonly Item[], other: readonly Item[]): boolean {
  return one.length === other.length && one.every((item, index) => item === other[index]);
}

function isSameRule(one: CompiledRule, other: CompiledRule): boolean {
  return (
    one.version === other.version &&
    one.mode === other.mode &&
    one.organizationId === other.organizationId
  );
}

function isOfTime({ tickMicros, noData, usesConnection }: CompiledRule): boolean {
  return tickMicros !== null || noData !== null || usesConnection;
}

function keptWhenSame<Value>(
  wanted: ReadonlyMap<string, Value>,
  before: ReadonlyMap<string, Value> | undefined,
  isSame: (one: Value, other: Value) => boolean,
): ReadonlyMap<string, Value> {
  if (before?.size !== wanted.size) return wanted;
  for (const [name, value] of wanted) {
    const known = before.get(name);
    if (known === undefined || !isSame(known, value)) return wanted;
  }
  return before;
}

function isSameHistory(one: WantedHistory, other: WantedHistory): boolean {
  return one.historyMicros === other.historyMicros && one.historySamples === other.historySamples;
}

function wantedMetrics(
  rules: readonly CompiledRule[],
  compared: readonly { readonly metric: string }[],
): Map<string, WantedHistory> {
  const wanted = new Map<string, WantedHistory>();
  for (const rule of rules) {
    for (const metric of prepareRule(rule).metrics) {
      const known = wanted.get(metric);
      wanted.set(metric, {
        historyMicros: Math.max(known?.historyMicros ?? 0, rule.historyMicros),
        historySamples: Math.max(known?.historySamples ?? 0, rule.historySamples),
      });
    }
  }
  for (const { metric } of compared) {
    if (!wanted.has(metric)) wanted.set(metric, { historyMicros: 0, historySamples: 0 });
  }
  return wanted;
}

/** An event of an expression holds for the moment; a second is as good as none. */
const MOMENT_MICROS = 1_000_000;

function wantedEvents(rules: readonly CompiledRule[]): Map<string, number> {
  const wanted = new Map<string, number>();
  const want = (name: string, micros: number): void => {
    wanted.set(name, Math.max(wanted.get(name) ?? 0, micros));
  };
  for (const rule of rules) {
    for (const name of rule.events) want(name, MOMENT_MICROS);
    for (const leaf of prepareRule(rule).leaves) {
      if (leaf.kind === 'event') want(leaf.name, leaf.holdsMicros);
    }
  }
  return wanted;
}

interface FleetComparison {
  readonly fn: Parameters<FleetValues['value']>[0];
  readonly tag: string;
  readonly metric: string;
}

function fleetComparisons(rule: CompiledRule): FleetComparison[] {
  return prepareRule(rule).leaves.filter((leaf) => leaf.kind === 'compareFleet');
}

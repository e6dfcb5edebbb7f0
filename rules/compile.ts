// HOT PATH: evaluate once for each rule and sample; bench/rules-conditions.ts
import type { CompiledRule, EvaluationContext, Operand } from './compiled-rule.ts';
import { compileCondition } from './condition/compile-condition.ts';
import type { Condition } from './condition/condition.ts';
import { findKindFaults, type ConditionFault, type MetricKind } from './condition/kinds.ts';
import {
  RuleParts,
  type ConditionCounters,
  type FedOperator,
  type Operator,
  type TimedOperator,
} from './condition/operator.ts';
import { TRUE, UNKNOWN } from './condition/truth.ts';
import type { RuleDefinition } from './rule.ts';
import { levelOf, type Level } from './severity.ts';

/** Operands of one transition; those that hold come first when there are more. */
const OPERANDS_MAX = 16;

/** A rule as it is stored, with its keys. */
export interface RuleToCompile {
  /** Key inside. */
  readonly ruleId: number;
  readonly publicId: string;
  readonly organizationId: number;
  readonly version: number;
  readonly mode: 'enabled' | 'shadow';
  readonly definition: RuleDefinition;
}

/** What compiled rules have in common. */
export interface CompileOptions {
  /** Samples that a window keeps for a device. */
  readonly windowSamplesMax: number;
  /** Counts what could not be computed; without it nobody does. */
  readonly counters?: ConditionCounters;
}

interface LevelTree {
  readonly level: Level;
  readonly operator: Operator;
}

/**
 * Compiles a rule that was checked by its schema.
 * @throws {CelFault} of an expression that was not.
 */
export function compileRule(row: RuleToCompile, options: CompileOptions): CompiledRule {
  const { definition, ...keys } = row;
  const parts = new RuleParts(options.windowSamplesMax, options.counters ?? { celFailures: 0 });
  const trees = compileTrees(definition, parts);
  return {
    ...keys,
    name: definition.name,
    definition,
    metrics: parts.metrics,
    events: [...parts.events],
    usesConnection: parts.usesConnection,
    noData: parts.noData,
    tickMicros: parts.tickMicros,
    changesAt: (context) => firstChange(parts.timed, context),
    historyMicros: parts.historyMicros,
    historySamples: parts.historySamples,
    createMemory: () => parts.createMemory(),
    restoreMemory: (memory, level, activeAtMicros) =>
      parts.restoreMemory(memory, level, activeAtMicros),
    evaluate: evaluator(parts.fed, trees),
    isUnknown: (context) => isUnknown(trees, context),
    operands: (context) => operandsOf(trees, context),
  };
}

/** Metrics that conditions look at, each once, in the order of `CompiledRule.metrics`. */
export function listMetrics(conditions: readonly Condition[]): readonly string[] {
  const parts = new RuleParts(1, { celFailures: 0 });
  for (const condition of conditions) compileCondition(condition, parts);
  return parts.metrics;
}

/**
 * What of a rule's conditions does not fit together or does not fit its metrics; empty when all does. A
 * metric that is not in `kinds` has not been sent yet, and fits.
 */
export function checkKinds(
  definition: RuleDefinition,
  kinds: ReadonlyMap<string, MetricKind>,
): ConditionFault[] {
  const conditions = [
    { path: 'when', when: definition.when },
    ...definition.levels.map(({ when }, index) => ({ path: `levels.${index}.when`, when })),
  ];
  return [
    ...conditions.flatMap(({ path, when }) => findKindFaults(when, kinds, path)),
    ...findSilenceFaults(conditions.flatMap(({ when }) => listSilences(when))),
  ];
}

/** The operators of all levels, the highest first: the first that holds is the answer. */
function compileTrees(definition: RuleDefinition, parts: RuleParts): readonly LevelTree[] {
  const sources = [{ severity: definition.severity, when: definition.when }, ...definition.levels];
  return sources
    .map(({ severity, when }): LevelTree => {
      parts.level = levelOf(severity);
      return { level: parts.level, operator: compileCondition(when, parts) };
    })
    .toSorted((one, other) => other.level - one.level);
}

function evaluator(
  fed: readonly FedOperator[],
  trees: readonly LevelTree[],
): (context: EvaluationContext) => Level {
  return (context) => {
    for (let at = 0; at < fed.length; at += 1) (fed[at] as FedOperator).feed(context);
    for (let at = 0; at < trees.length; at += 1) {
      const { operator, level } = trees[at] as LevelTree;
      if (operator.truth(context) === TRUE) return level;
    }
    return 0;
  };
}

function isUnknown(trees: readonly LevelTree[], context: EvaluationContext): boolean {
  // What a device has never sent says nothing, and ends no less for it.
  if (context.series.some(({ timeMicros }) => timeMicros === -Infinity)) return false;
  const truths = trees.map(({ operator }) => operator.truth(context));
  return truths.includes(UNKNOWN) && !truths.includes(TRUE);
}

function firstChange(timed: readonly TimedOperator[], context: EvaluationContext): number {
  let first = Infinity;
  for (let at = 0; at < timed.length; at += 1) {
    first = Math.min(first, (timed[at] as TimedOperator).changesAt(context));
  }
  return first;
}

function operandsOf(trees: readonly LevelTree[], context: EvaluationContext): Operand[] {
  const operands: Operand[] = [];
  for (const { operator } of trees.toReversed()) operator.addOperands(context, operands);
  const seen = new Set<string>();
  const each = operands.filter(({ name, against }) => {
    const key = `${name} ${against}`;
    return !seen.has(key) && seen.add(key) !== null;
  });
  if (each.length <= OPERANDS_MAX) return each;
  return each
    .toSorted((one, other) => Number(other.holds) - Number(one.holds))
    .slice(0, OPERANDS_MAX);
}

function listSilences(condition: Condition): (number | 'auto')[] {
  if (condition.kind === 'all' || condition.kind === 'any') {
    return condition.of.flatMap(listSilences);
  }
  if (condition.kind === 'not') return listSilences(condition.of);
  return condition.kind === 'noData' ? [condition.afterMicros] : [];
}

/** A rule has one deadline for each device. */
function findSilenceFaults(silences: readonly (number | 'auto')[]): ConditionFault[] {
  if (new Set(silences).size < 2) return [];
  return [{ path: 'when', message: 'every noData of a rule must have the same duration' }];
}

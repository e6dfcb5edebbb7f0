import { compileCelCondition } from './cel.ts';
import { compileCompareFleet, compileCompareMetric } from './compare-computed.ts';
import { compileCompare } from './compare.ts';
import type { Condition } from './condition.ts';
import { compileConnection, compileEvent, compileNoData } from './device-state.ts';
import { AllOperator, AnyOperator, NotOperator } from './logic.ts';
import type { Operator, RuleParts } from './operator.ts';
import { compileSchedule } from './schedule.ts';
import { compileStuck } from './stuck.ts';
import { compileWindow } from './window.ts';

/**
 * Compiles a condition and notes in `parts` what it needs.
 * @throws {CelFault} of an expression that the schema did not check.
 */
export function compileCondition(condition: Condition, parts: RuleParts): Operator {
  switch (condition.kind) {
    case 'all':
      return new AllOperator(compileParts(condition.of, parts));
    case 'any':
      return new AnyOperator(compileParts(condition.of, parts));
    case 'not':
      return compileNot(condition.of, parts);
    case 'compare':
      return compileCompare(condition, parts);
    case 'window':
      return compileWindow(condition, parts);
    case 'stuck':
      return compileStuck(condition, parts);
    case 'compareMetric':
      return compileCompareMetric(condition, parts);
    case 'compareFleet':
      return compileCompareFleet(condition, parts);
    case 'event':
      return compileEvent(condition, parts);
    case 'connection':
      return compileConnection(condition, parts);
    case 'schedule':
      return compileSchedule(condition, parts);
    case 'noData':
      return compileNoData(condition, parts);
    case 'cel':
      return compileCelCondition(condition, parts);
  }
}

function compileNot(of: Condition, parts: RuleParts): Operator {
  parts.isNegated = !parts.isNegated;
  const [operator] = compileParts([of], parts);
  parts.isNegated = !parts.isNegated;
  return new NotOperator(operator as Operator);
}

function compileParts(conditions: readonly Condition[], parts: RuleParts): Operator[] {
  const { isPart } = parts;
  parts.isPart = true;
  const operators = conditions.map((condition) => compileCondition(condition, parts));
  parts.isPart = isPart;
  return operators;
}

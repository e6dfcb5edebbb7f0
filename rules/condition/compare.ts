// HOT PATH: once for each evaluation; bench/rules-conditions.ts
import type { EvaluationContext, Operand, Series } from '../compiled-rule.ts';
import type { Condition, NumberOperator } from './condition.ts';
import { Latch } from './latch.ts';
import type { FedOperator, Operator, RuleParts } from './operator.ts';
import { SampleCount, SampleCountMemory } from './sample-count.ts';
import { againstOf, seriesOperand } from './words.ts';
import { compareNumbers, FALSE, TRUE, UNKNOWN, type Truth } from './truth.ts';

type Compare = Extract<Condition, { kind: 'compare' }>;

/** Samples that are looked back at for one beyond either threshold, which decides whether it holds. */
const LATCH_SAMPLES = 64;

/** `metric op value`, with hysteresis, dead band and N of M where it has them. */
export function compileCompare(condition: Compare, parts: RuleParts): Operator {
  const series = parts.seriesIndex(condition.metric);
  if (condition.of !== null) {
    const { m } = condition.of;
    parts.needSamples(m);
    const slot = parts.addHoldingMemory(() => new SampleCountMemory(m));
    return fed(parts, new SampleCount(series, slot, condition));
  }
  if (condition.clear !== null || condition.deadBand !== null) {
    const slot = parts.addHoldingMemory(() => new Latch());
    // Alone it holds if and only if an alert is open. As a part, the last samples have to tell.
    if (parts.isPart) parts.needSamples(LATCH_SAMPLES);
    return fed(parts, new LatchedComparison(series, slot, condition));
  }
  return typeof condition.value === 'string'
    ? new TextComparison(series, condition)
    : new NumberComparison(series, condition);
}

function fed(parts: RuleParts, operator: FedOperator): Operator {
  parts.fed.push(operator);
  return operator;
}

class NumberComparison implements Operator {
  readonly #series: number;
  readonly #op: NumberOperator;
  readonly #value: number;
  readonly #against: string;

  constructor(series: number, condition: Compare) {
    this.#series = series;
    this.#op = condition.op;
    this.#value = Number(condition.value);
    this.#against = againstOf(condition);
  }

  truth(context: EvaluationContext): Truth {
    return compareNumbers(this.#op, (context.series[this.#series] as Series).value, this.#value);
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    const series = context.series[this.#series] as Series;
    operands.push(seriesOperand(series, this.#against, this.truth(context) === TRUE));
  }
}

class TextComparison implements Operator {
  readonly #series: number;
  readonly #isEqual: boolean;
  readonly #value: string;
  readonly #against: string;

  constructor(series: number, condition: Compare) {
    this.#series = series;
    this.#isEqual = condition.op === '==';
    this.#value = String(condition.value);
    this.#against = againstOf(condition);
  }

  truth(context: EvaluationContext): Truth {
    const { text } = context.series[this.#series] as Series;
    if (text === null) return UNKNOWN;
    return (text === this.#value) === this.#isEqual ? TRUE : FALSE;
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    const series = context.series[this.#series] as Series;
    operands.push(seriesOperand(series, this.#against, this.truth(context) === TRUE));
  }
}

/** With hysteresis or a dead band: whether it holds depends on whether it held. */
class LatchedComparison implements FedOperator {
  readonly #series: number;
  readonly #slot: number;
  readonly #condition: Compare;
  readonly #value: number;
  readonly #against: string;

  constructor(series: number, slot: number, condition: Compare) {
    this.#series = series;
    this.#slot = slot;
    this.#condition = condition;
    this.#value = Number(condition.value);
    this.#against = againstOf(condition);
  }

  feed(context: EvaluationContext): void {
    const series = context.series[this.#series] as Series;
    (context.memory[this.#slot] as Latch).step(this.#condition, this.#value, series.value);
  }

  truth(context: EvaluationContext): Truth {
    const { value } = context.series[this.#series] as Series;
    if (value - value !== 0) return UNKNOWN;
    return (context.memory[this.#slot] as Latch).isHeld ? TRUE : FALSE;
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    const series = context.series[this.#series] as Series;
    operands.push(seriesOperand(series, this.#against, this.truth(context) === TRUE));
  }
}

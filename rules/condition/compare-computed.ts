// HOT PATH: once for each evaluation
import type { EvaluationContext, Operand, OperatorMemory, Series } from '../compiled-rule.ts';
import { formatDuration } from '../../duration.ts';
import type { Condition } from './condition.ts';
import type { FedOperator, Operator, RuleParts } from './operator.ts';
import { SampleRing } from './sample-ring.ts';
import { compareNumbers, TRUE, type Truth } from './truth.ts';
import { scaledName, seriesOperand, shownNumber } from './words.ts';

type CompareMetric = Extract<Condition, { kind: 'compareMetric' }>;
type CompareFleet = Extract<Condition, { kind: 'compareFleet' }>;

/** A metric against another one of the device, as it is or as it was. */
export function compileCompareMetric(condition: CompareMetric, parts: RuleParts): Operator {
  const { agoMicros } = condition;
  const series = parts.seriesIndex(condition.metric);
  const other = parts.seriesIndex(condition.other);
  if (agoMicros === 0) return new MetricComparison(series, other, condition);
  // The value of that time came before it.
  parts.needHistory(Math.ceil(agoMicros * 1.25));
  const slot = parts.addMemory(() => new PastMemory(agoMicros, parts.windowSamplesMax));
  const operator = new PastComparison([series, other, slot], condition);
  parts.fed.push(operator);
  return operator;
}

/** A metric against what all devices with a tag say of it. Looked at with each sample of the device. */
export function compileCompareFleet(condition: CompareFleet, parts: RuleParts): Operator {
  return new FleetComparison(parts.seriesIndex(condition.metric), condition);
}

class MetricComparison implements Operator {
  readonly #series: number;
  readonly #other: number;
  readonly #condition: CompareMetric;

  constructor(series: number, other: number, condition: CompareMetric) {
    this.#series = series;
    this.#other = other;
    this.#condition = condition;
  }

  truth(context: EvaluationContext): Truth {
    const { op, times, plus } = this.#condition;
    const other = (context.series[this.#other] as Series).value;
    return compareNumbers(op, (context.series[this.#series] as Series).value, times * other + plus);
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    const { op, times, plus, other } = this.#condition;
    const holds = this.truth(context) === TRUE;
    const against = `${op} ${scaledName(other, times, plus)}`;
    operands.push(seriesOperand(context.series[this.#series] as Series, against, holds));
    operands.push(seriesOperand(context.series[this.#other] as Series, null, holds));
  }
}

/**
 * What a metric was at a time that follows its newest sample at a fixed distance. Between the two it keeps
 * at most one sample, the last, of each piece of that distance, so that it is exact to a piece, whatever
 * the rate of samples; with fewer samples than pieces it is exact.
 */
class PastMemory implements OperatorMemory {
  fedMicros = -Infinity;
  /** What it was, and since when; NaN before there was any. */
  value = NaN;
  valueMicros = -Infinity;
  readonly #pieceMicros: number;
  readonly #ring: SampleRing;

  constructor(agoMicros: number, samplesMax: number) {
    this.#ring = new SampleRing(samplesMax);
    this.#pieceMicros = Math.ceil(agoMicros / Math.max(samplesMax - 2, 1));
  }

  add(timeMicros: number, value: number): void {
    const ring = this.#ring;
    this.fedMicros = timeMicros;
    const newest = ring.count === 0 ? -Infinity : ring.timeAt(ring.count - 1);
    if (this.#pieceOf(newest) === this.#pieceOf(timeMicros)) ring.replaceNewest(timeMicros, value);
    else {
      if (ring.isFull) ring.shift();
      ring.push(timeMicros, value);
    }
  }

  /** Moves to a later time. */
  moveTo(timeMicros: number): void {
    const ring = this.#ring;
    while (ring.count > 0 && ring.timeAt(0) <= timeMicros) {
      this.value = ring.valueAt(0);
      this.valueMicros = ring.timeAt(0);
      ring.shift();
    }
  }

  reset(): void {
    this.fedMicros = -Infinity;
    this.value = NaN;
    this.valueMicros = -Infinity;
    this.#ring.clear();
  }

  #pieceOf(timeMicros: number): number {
    return Math.floor(timeMicros / this.#pieceMicros);
  }
}

class PastComparison implements FedOperator {
  readonly #series: number;
  readonly #other: number;
  readonly #slot: number;
  readonly #condition: CompareMetric;

  constructor([series, other, slot]: [number, number, number], condition: CompareMetric) {
    this.#series = series;
    this.#other = other;
    this.#slot = slot;
    this.#condition = condition;
  }

  feed(context: EvaluationContext): void {
    const other = context.series[this.#other] as Series;
    const memory = context.memory[this.#slot] as PastMemory;
    if (other.timeMicros !== memory.fedMicros && other.value - other.value === 0) {
      memory.add(other.timeMicros, other.value);
    }
    const { timeMicros } = context.series[this.#series] as Series;
    memory.moveTo(timeMicros - this.#condition.agoMicros);
  }

  truth(context: EvaluationContext): Truth {
    const { op, times, plus } = this.#condition;
    const past = (context.memory[this.#slot] as PastMemory).value;
    return compareNumbers(op, (context.series[this.#series] as Series).value, times * past + plus);
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    const { op, times, plus, other, agoMicros } = this.#condition;
    const holds = this.truth(context) === TRUE;
    const memory = context.memory[this.#slot] as PastMemory;
    const name = `${other} ${formatDuration(agoMicros)} ago`;
    const against = `${op} ${scaledName(name, times, plus)}`;
    const value = shownNumber(memory.value);
    const timeMicros = value === null ? null : memory.valueMicros;
    operands.push(seriesOperand(context.series[this.#series] as Series, against, holds));
    operands.push({ name, value, timeMicros, against: null, holds });
  }
}

class FleetComparison implements Operator {
  readonly #series: number;
  readonly #condition: CompareFleet;

  constructor(series: number, condition: CompareFleet) {
    this.#series = series;
    this.#condition = condition;
  }

  truth(context: EvaluationContext): Truth {
    const { op, times, plus } = this.#condition;
    const { value } = context.series[this.#series] as Series;
    return compareNumbers(op, value, times * this.#fleetValue(context) + plus);
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    const { op, times, plus, fn, tag, metric } = this.#condition;
    const holds = this.truth(context) === TRUE;
    const name = `${fn}(${metric} of ${tag})`;
    const against = `${op} ${scaledName(name, times, plus)}`;
    operands.push(seriesOperand(context.series[this.#series] as Series, against, holds));
    const value = shownNumber(this.#fleetValue(context));
    operands.push({ name, value, timeMicros: null, against: null, holds });
  }

  #fleetValue(context: EvaluationContext): number {
    const { fn, tag, metric } = this.#condition;
    return context.fleet.value(fn, tag, metric);
  }
}

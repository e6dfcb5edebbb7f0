// HOT PATH: once for each evaluation; bench/rules-conditions.ts
import type { EvaluationContext, Operand, Series } from '../compiled-rule.ts';
import {
  ChangeAggregate,
  CountAggregate,
  FoldAggregate,
  PercentileAggregate,
  SpreadAggregate,
  type Aggregate,
} from './aggregates.ts';
import type { Condition, WindowFunction } from './condition.ts';
import { Latch, type Hysteresis } from './latch.ts';
import {
  tickOf,
  type FedOperator,
  type HoldingMemory,
  type RuleParts,
  type TimedOperator,
} from './operator.ts';
import { SampleRing } from './sample-ring.ts';
import { compareNumbers, FALSE, TRUE, type Truth } from './truth.ts';
import { againstOf, shownNumber, windowName } from './words.ts';

type WindowCondition = Extract<Condition, { kind: 'window' }>;

/**
 * `fn(metric, window) op value`. A window by time is (end − span, end] and ends at the newest sample of its
 * metric, so that silence changes nothing that was computed; only that of `count` ends now. A window by
 * samples is unknown until it is full.
 */
export function compileWindow(condition: WindowCondition, parts: RuleParts): FedOperator {
  const series = parts.seriesIndex(condition.metric);
  const { window, fn } = condition;
  if ('samples' in window) {
    parts.needSamples(Math.min(window.samples, parts.windowSamplesMax));
  } else {
    // A hysteresis goes by whole windows, so the first of them is needed before what is looked at.
    parts.needHistory(condition.clear === null ? window.spanMicros : 2 * window.spanMicros);
  }
  const slot = parts.addHoldingMemory(() => new WindowMemory(condition, parts.windowSamplesMax));
  const operator = new WindowComparison(series, slot, condition);
  parts.fed.push(operator);
  if (fn === 'count' && 'spanMicros' in window) parts.needTick(operator, tickOf(window.spanMicros));
  return operator;
}

/** The samples of a window, and what is computed over them. */
class WindowMemory implements HoldingMemory {
  fedMicros = -Infinity;
  /** What was computed last; NaN: nothing can be said. */
  result = NaN;
  readonly latch = new Latch();
  /** An open alert has said that it held. */
  #isRestored = false;
  readonly #ring: SampleRing;
  readonly #aggregate: Aggregate;
  readonly #spanMicros: number;
  /** Fewer say nothing. */
  readonly #samplesNeeded: number;
  #firstMicros = Infinity;
  #endMicros = -Infinity;
  /** Time of the newest sample that went out only because no more are kept. */
  #droppedMicros = -Infinity;

  constructor({ fn, window }: WindowCondition, samplesMax: number) {
    const isByCount = 'samples' in window;
    this.#ring = new SampleRing(isByCount ? Math.min(window.samples, samplesMax) : samplesMax);
    this.#aggregate = aggregateOf(fn);
    this.#spanMicros = isByCount ? Infinity : window.spanMicros;
    this.#samplesNeeded = isByCount ? this.#ring.samplesMax : fn === 'count' ? 0 : 1;
  }

  /** Samples that are kept at most, when some that belong into the window are not; else null. */
  get cutAt(): number | null {
    const isCut = this.#droppedMicros > this.#endMicros - this.#spanMicros;
    return isCut && this.#spanMicros < Infinity ? this.#ring.samplesMax : null;
  }

  add(timeMicros: number, value: number): void {
    const ring = this.#ring;
    this.fedMicros = timeMicros;
    if (this.#firstMicros === Infinity) this.#firstMicros = timeMicros;
    this.end(timeMicros);
    if (ring.isFull) {
      this.#droppedMicros = ring.timeAt(0);
      this.#removeOldest();
    }
    ring.push(timeMicros, value);
    this.#aggregate.added(ring);
  }

  /** Lets out what lies a span or more before the end. */
  end(endMicros: number): void {
    this.#endMicros = endMicros;
    const beginMicros = endMicros - this.#spanMicros;
    while (this.#ring.count > 0 && this.#ring.timeAt(0) <= beginMicros) this.#removeOldest();
  }

  /** When the oldest sample is a span old. */
  get oldestEndsMicros(): number {
    return this.#ring.count === 0 ? Infinity : this.#ring.timeAt(0) + this.#spanMicros;
  }

  compute(): void {
    const { count } = this.#ring;
    if (count < this.#samplesNeeded || this.fedMicros === -Infinity) this.result = NaN;
    else this.result = count === 0 ? 0 : this.#aggregate.result(this.#ring);
  }

  /**
   * Whether a hysteresis goes by it: a window that is not whole yet is not remembered, or it would keep to
   * what a few samples said.
   */
  get isWhole(): boolean {
    const span = this.#spanMicros;
    return span === Infinity || this.#endMicros - this.#firstMicros >= span;
  }

  /**
   * Whether its verdict is that of the hysteresis. What was restored stays where more samples belong into
   * the window than are kept: those that were fed in are not all there were.
   */
  get isLatched(): boolean {
    return this.isWhole || (this.#isRestored && this.#droppedMicros > -Infinity);
  }

  /** When it becomes whole; Infinity when that was before. */
  wholeFromMicros(nowMicros: number): number {
    const wholeMicros = this.#firstMicros + this.#spanMicros;
    return wholeMicros > nowMicros ? wholeMicros : Infinity;
  }

  reset(): void {
    this.fedMicros = -Infinity;
    this.result = NaN;
    this.latch.reset();
    this.#firstMicros = Infinity;
    this.#isRestored = false;
    this.#ring.clear();
    this.#aggregate.reset();
    this.#endMicros = -Infinity;
    this.#droppedMicros = -Infinity;
  }

  hold(): void {
    this.latch.hold();
    this.#isRestored = true;
  }

  #removeOldest(): void {
    this.#aggregate.removing(this.#ring);
    this.#ring.shift();
  }
}

class WindowComparison implements FedOperator, TimedOperator {
  readonly #series: number;
  readonly #slot: number;
  readonly #condition: WindowCondition;
  readonly #hysteresis: Hysteresis | null;
  readonly #isCount: boolean;

  constructor(series: number, slot: number, condition: WindowCondition) {
    this.#series = series;
    this.#slot = slot;
    this.#condition = condition;
    const { op, clear } = condition;
    this.#hysteresis = clear === null ? null : { op, clear, deadBand: null };
    this.#isCount = condition.fn === 'count';
  }

  feed(context: EvaluationContext): void {
    const series = context.series[this.#series] as Series;
    const memory = context.memory[this.#slot] as WindowMemory;
    const { value } = series;
    const isNew = series.timeMicros !== memory.fedMicros;
    if (isNew && (this.#isCount || value - value === 0)) memory.add(series.timeMicros, value);
    else if (!this.#isCount) return;
    if (this.#isCount && 'spanMicros' in this.#condition.window) memory.end(context.timeMicros);
    memory.compute();
    if (this.#hysteresis === null) return;
    if (!memory.isWhole) return;
    memory.latch.step(this.#hysteresis, this.#condition.value, memory.result);
  }

  truth(context: EvaluationContext): Truth {
    const memory = context.memory[this.#slot] as WindowMemory;
    const { result, latch } = memory;
    const { op, value } = this.#condition;
    const isLatched = this.#hysteresis !== null && memory.isLatched;
    if (!isLatched || result - result !== 0) return compareNumbers(op, result, value);
    return latch.isHeld ? TRUE : FALSE;
  }

  /** Of `count`, the only one that time changes; and of a hysteresis on it, when the window is whole. */
  changesAt(context: EvaluationContext): number {
    const memory = context.memory[this.#slot] as WindowMemory;
    const nextMicros = Math.min(
      memory.oldestEndsMicros,
      memory.wholeFromMicros(context.timeMicros),
    );
    return Math.max(nextMicros, context.timeMicros + 1);
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    const { metric, fn, window } = this.#condition;
    const memory = context.memory[this.#slot] as WindowMemory;
    const cut = memory.cutAt === null ? '' : `, newest ${memory.cutAt} samples`;
    const value = shownNumber(memory.result);
    operands.push({
      name: `${fn}(${metric}, ${windowName(window)}${cut})`,
      value,
      timeMicros: value === null ? null : memory.fedMicros,
      against: againstOf(this.#condition),
      holds: this.truth(context) === TRUE,
    });
  }
}

function aggregateOf(fn: WindowFunction): Aggregate {
  switch (fn) {
    case 'avg':
      return new FoldAggregate('sum', true);
    case 'sum':
    case 'min':
    case 'max':
      return new FoldAggregate(fn);
    case 'count':
      return new CountAggregate();
    case 'delta':
      return new ChangeAggregate(false);
    case 'rate':
      return new ChangeAggregate(true);
    case 'stddev':
      return new SpreadAggregate();
    default:
      return new PercentileAggregate(Number(fn.slice(1)));
  }
}

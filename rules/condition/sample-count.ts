// HOT PATH: once for each sample of a metric
import type { EvaluationContext, Operand, Series } from '../compiled-rule.ts';
import type { Condition } from './condition.ts';
import { Latch } from './latch.ts';
import type { FedOperator, HoldingMemory } from './operator.ts';
import { FALSE, TRUE, UNKNOWN, type Truth } from './truth.ts';
import { againstOf } from './words.ts';

type Compare = Extract<Condition, { kind: 'compare' }>;

/** Which of the last samples met a comparison. */
export class SampleCountMemory implements HoldingMemory {
  fedMicros = -Infinity;
  readonly latch = new Latch();
  /** How many samples were taken in, at most as many as are looked at. */
  samples = 0;
  /** How many of them met it. */
  holding = 0;
  readonly #met: Uint8Array;
  #at = 0;

  constructor(samplesMax: number) {
    this.#met = new Uint8Array(samplesMax);
  }

  add(isMet: boolean): void {
    const met = this.#met;
    const now = isMet ? 1 : 0;
    this.holding += now - (met[this.#at] as number);
    met[this.#at] = now;
    this.#at = this.#at + 1 === met.length ? 0 : this.#at + 1;
    if (this.samples < met.length) this.samples += 1;
  }

  /** The samples themselves are in history; a hysteresis began before them. */
  hold(): void {
    this.latch.hold();
  }

  reset(): void {
    this.fedMicros = -Infinity;
    this.latch.reset();
    this.samples = 0;
    this.holding = 0;
    this.#met.fill(0);
    this.#at = 0;
  }
}

/**
 * Holds when at least N of the last M samples meet a comparison; it may do so before M have come. A sample
 * of another kind than the comparison's does not count.
 */
export class SampleCount implements FedOperator {
  readonly #series: number;
  readonly #slot: number;
  readonly #condition: Compare;
  readonly #threshold: number;
  readonly #needed: number;

  constructor(series: number, slot: number, condition: Compare) {
    this.#series = series;
    this.#slot = slot;
    this.#condition = condition;
    this.#threshold = typeof condition.value === 'string' ? NaN : Number(condition.value);
    this.#needed = condition.of?.n ?? 1;
  }

  feed(context: EvaluationContext): void {
    const series = context.series[this.#series] as Series;
    const memory = context.memory[this.#slot] as SampleCountMemory;
    if (series.timeMicros === memory.fedMicros) return;
    memory.fedMicros = series.timeMicros;
    const condition = this.#condition;
    if (typeof condition.value === 'string') {
      if (series.text === null) return;
      memory.add((series.text === condition.value) === (condition.op === '=='));
    } else if (series.value - series.value === 0) {
      memory.latch.step(condition, this.#threshold, series.value);
      memory.add(memory.latch.isHeld);
    }
  }

  truth(context: EvaluationContext): Truth {
    const memory = context.memory[this.#slot] as SampleCountMemory;
    if (memory.samples === 0) return UNKNOWN;
    return memory.holding >= this.#needed ? TRUE : FALSE;
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    const memory = context.memory[this.#slot] as SampleCountMemory;
    const { metric, of } = this.#condition;
    operands.push({
      name: `samples of the last ${of?.m ?? 1} with ${metric} ${againstOf(this.#condition)}`,
      value: memory.samples === 0 ? null : memory.holding,
      timeMicros: memory.samples === 0 ? null : memory.fedMicros,
      against: `>= ${this.#needed}`,
      holds: this.truth(context) === TRUE,
    });
  }
}

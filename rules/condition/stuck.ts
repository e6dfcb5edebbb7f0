// HOT PATH: once for each evaluation
import type { EvaluationContext, Operand, Series } from '../compiled-rule.ts';
import { formatDuration } from '../../duration.ts';
import type { Condition } from './condition.ts';
import type { FedOperator, HoldingMemory, RuleParts } from './operator.ts';
import { SampleRing } from './sample-ring.ts';
import { FALSE, TRUE, UNKNOWN, type Truth } from './truth.ts';
import { shownNumber } from './words.ts';

/** Of the size of the values: each is off by half of an epsilon at most, and so is their difference. */
const ROUNDING = 2 * Number.EPSILON;

type Stuck = Extract<Condition, { kind: 'stuck' }>;

/**
 * Holds while a metric has stayed within a band for a span, by what its device says: it must go on sending.
 * A device that is silent is not stuck.
 */
export function compileStuck(condition: Stuck, parts: RuleParts): FedOperator {
  const series = parts.seriesIndex(condition.metric);
  // A value counts for as long as it lasts, so the one before the span is needed as well.
  parts.needHistory(2 * condition.spanMicros);
  const slot = parts.addHoldingMemory(
    () => new StuckMemory(condition.within, parts.windowSamplesMax),
  );
  const operator = new StuckOperator(series, slot, condition);
  parts.fed.push(operator);
  return operator;
}

/**
 * Since when a metric has stayed within a band. Kept are only samples that could still become the smallest
 * or the largest when older ones go, each with the time at which the next sample took its place.
 */
class StuckMemory implements HoldingMemory {
  fedMicros = -Infinity;
  /** NaN before the first sample. */
  sinceMicros = NaN;
  /** How much the last sample was away from those that it ended the band of; NaN when it was within. */
  jump = NaN;
  readonly #within: number;
  readonly #smallest: SampleRing;
  readonly #largest: SampleRing;
  #isHeld = false;

  constructor(within: number, samplesMax: number) {
    this.#within = within;
    this.#smallest = new SampleRing(samplesMax);
    this.#largest = new SampleRing(samplesMax);
  }

  /** How much it has moved since. NaN before the first sample. */
  get moved(): number {
    if (this.#largest.count === 0) return NaN;
    return this.#largest.valueAt(0) - this.#smallest.valueAt(0);
  }

  add(timeMicros: number, value: number): void {
    if (this.fedMicros === -Infinity) this.sinceMicros = this.#isHeld ? -Infinity : timeMicros;
    this.fedMicros = timeMicros;
    this.#keep(this.#smallest, 1, value);
    this.#keep(this.#largest, -1, value);
    this.jump = NaN;
    while (this.#isOutside()) {
      if (this.jump !== this.jump) this.jump = this.moved;
      // Of the two that are too far apart, the older one does not count any more.
      this.#forgetUntil(Math.min(this.#smallest.timeAt(0), this.#largest.timeAt(0)));
    }
  }

  reset(): void {
    this.fedMicros = -Infinity;
    this.sinceMicros = NaN;
    this.jump = NaN;
    this.#smallest.clear();
    this.#largest.clear();
    this.#isHeld = false;
  }

  hold(): void {
    this.#isHeld = true;
  }

  /** 21.1 - 21 is more than 0.1: as much as the digits of the values leave open does not count. */
  #isOutside(): boolean {
    const { moved } = this;
    if (!(moved > this.#within)) return false;
    const size = Math.max(Math.abs(this.#largest.valueAt(0)), Math.abs(this.#smallest.valueAt(0)));
    return this.#within === 0 || moved - this.#within > ROUNDING * size;
  }

  /** @param sign 1 for the smallest, -1 for the largest. */
  #keep(ring: SampleRing, sign: number, value: number): void {
    if (ring.count > 0) ring.replaceNewest(this.fedMicros, ring.valueAt(ring.count - 1));
    while (ring.count > 0 && sign * ring.valueAt(ring.count - 1) >= sign * value) ring.pop();
    if (ring.isFull) this.#forgetUntil(ring.timeAt(0));
    ring.push(Infinity, value);
  }

  #forgetUntil(untilMicros: number): void {
    this.sinceMicros = Math.max(this.sinceMicros, untilMicros);
    forgetUntil(this.#smallest, untilMicros);
    forgetUntil(this.#largest, untilMicros);
  }
}

function forgetUntil(ring: SampleRing, untilMicros: number): void {
  while (ring.count > 0 && ring.timeAt(0) <= untilMicros) ring.shift();
}

class StuckOperator implements FedOperator {
  readonly #series: number;
  readonly #slot: number;
  readonly #condition: Stuck;

  constructor(series: number, slot: number, condition: Stuck) {
    this.#series = series;
    this.#slot = slot;
    this.#condition = condition;
  }

  feed(context: EvaluationContext): void {
    const { timeMicros, value } = context.series[this.#series] as Series;
    const memory = context.memory[this.#slot] as StuckMemory;
    if (timeMicros === memory.fedMicros || value - value !== 0) return;
    memory.add(timeMicros, value);
  }

  truth(context: EvaluationContext): Truth {
    const { fedMicros, sinceMicros } = context.memory[this.#slot] as StuckMemory;
    if (fedMicros === -Infinity) return UNKNOWN;
    return fedMicros - sinceMicros >= this.#condition.spanMicros ? TRUE : FALSE;
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    const { metric, within, spanMicros } = this.#condition;
    const memory = context.memory[this.#slot] as StuckMemory;
    const { fedMicros, sinceMicros, moved, jump } = memory;
    const heldMicros = Math.min(fedMicros - sinceMicros, spanMicros);
    // Right behind a jump it has not moved yet: the jump itself says why.
    const hasJumped = heldMicros === 0 && jump === jump;
    const value = shownNumber(hasJumped ? jump : moved);
    const during = value === null || heldMicros === 0 ? '' : ` in ${formatDuration(heldMicros)}`;
    operands.push({
      name: `change of ${metric}${during}`,
      value,
      timeMicros: value === null ? null : fedMicros,
      against: `<= ${within} for ${formatDuration(spanMicros)}`,
      holds: this.truth(context) === TRUE,
    });
  }
}

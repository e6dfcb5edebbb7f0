// HOT PATH: bench/rules-evaluation.ts
import type { CompiledRule, EvaluationContext } from '../compiled-rule.ts';
import type { Level } from '../severity.ts';

/** Of this many evaluations one is measured, once enough of them were. */
const MEASURED_EACH = 64;
/** Measurements that the mean is over. */
const MEASURED = 64;
/** One measurement counts as this many times the bound at most: the program may have paused in it. */
const OUTLIER_FACTOR = 4;
/** Beyond this share of the bound every evaluation is measured. */
const WATCHED_SHARE = 0.125;

/** What evaluations of one rule cost, over all devices: a mean of samples. Kept as plain numbers. */
export class CostMeter {
  evaluations = 0;
  #left = 1;
  #measured = 0;
  #meanUs = 0;
  #maxUs = Infinity;

  /** Sets the bound that {@link isOver} goes by, in microseconds. */
  limit(maxUs: number): void {
    this.#maxUs = maxUs;
  }

  /** Mean time of an evaluation in microseconds; 0 before the first. */
  get meanUs(): number {
    return this.#meanUs;
  }

  /** Whether the mean of the last evaluations is beyond the bound; false until enough were measured. */
  get isOver(): boolean {
    return this.#measured >= MEASURED && this.#meanUs > this.#maxUs;
  }

  /** Evaluates, and measures now and then. */
  evaluate(rule: CompiledRule, context: EvaluationContext): Level {
    this.evaluations += 1;
    this.#left -= 1;
    if (this.#left > 0) return rule.evaluate(context);
    const startedMs = performance.now();
    const level = rule.evaluate(context);
    this.add((performance.now() - startedMs) * 1000);
    return level;
  }

  /** Notes what one evaluation took, in microseconds. */
  add(tookUs: number): void {
    const bounded = Math.min(tookUs, this.#maxUs * OUTLIER_FACTOR);
    this.#measured = Math.min(this.#measured + 1, MEASURED);
    this.#meanUs += (bounded - this.#meanUs) / this.#measured;
    const isWatched = this.#measured < MEASURED || this.#meanUs > this.#maxUs * WATCHED_SHARE;
    this.#left = isWatched ? 1 : MEASURED_EACH;
  }
}

import type { EvaluationContext, Operand, OperatorMemory, Silence } from '../compiled-rule.ts';
import type { Level } from '../severity.ts';
import type { Truth } from './truth.ts';

/** A condition that was compiled. Has no state: that is in `EvaluationContext.memory`. */
export interface Operator {
  /** Hot path. May be left out by `all` and `any`, so it changes nothing. */
  truth(context: EvaluationContext): Truth;
  /** Adds what it looks at, for people. */
  addOperands(context: EvaluationContext, operands: Operand[]): void;
}

/** An operator that remembers: told of each evaluation, whether its truth is asked for or not. */
export interface FedOperator extends Operator {
  /** Hot path. Once for each evaluation, before any truth. Takes a sample in once, however often it is called. */
  feed(context: EvaluationContext): void;
}

/** An operator whose truth may change with time alone. */
export interface TimedOperator extends Operator {
  /** The next time at which it may; later than now, Infinity when it cannot. */
  changesAt(context: EvaluationContext): number;
}

/** A memory with something that readings alone do not tell. */
export interface HoldingMemory extends OperatorMemory {
  /** As it must have been while an alert was open because of it. */
  hold(activeAtMicros: number): void;
}

interface Restorer {
  readonly slot: number;
  readonly level: Level;
}

/** Counts what conditions met that they could not compute; published by whoever owns it. */
export interface ConditionCounters {
  /** Evaluations of CEL expressions that ended in an error; they count as not holding. */
  celFailures: number;
}

/** Shared: most rules remember nothing, and there is one for each rule and device. */
const NO_MEMORY: OperatorMemory[] = [];
Object.freeze(NO_MEMORY);

/** What one rule consists of, collected while its conditions are compiled. */
export class RuleParts {
  readonly metrics: string[] = [];
  readonly events = new Set<string>();
  readonly fed: FedOperator[] = [];
  readonly timed: TimedOperator[] = [];
  readonly windowSamplesMax: number;
  readonly counters: ConditionCounters;
  usesConnection = false;
  noData: { afterMicros: number | 'auto'; kinds: readonly Silence[] } | null = null;
  tickMicros: number | null = null;
  historyMicros = 0;
  historySamples = 0;
  /** Level of the tree that is compiled. */
  level: Level = 0;
  /** Whether the operator that is compiled stands under an odd number of `not`. */
  isNegated = false;
  /** Whether it is a part of another: then its own verdict is not that of the rule. */
  isPart = false;
  readonly #memories: (() => OperatorMemory)[] = [];
  readonly #restorers: Restorer[] = [];

  constructor(windowSamplesMax: number, counters: ConditionCounters) {
    this.windowSamplesMax = windowSamplesMax;
    this.counters = counters;
  }

  /** The operand index of a metric. */
  seriesIndex(metric: string): number {
    const index = this.metrics.indexOf(metric);
    return index < 0 ? this.metrics.push(metric) - 1 : index;
  }

  /** The slot of a memory in `EvaluationContext.memory`. */
  addMemory(create: () => OperatorMemory): number {
    return this.#memories.push(create) - 1;
  }

  /** The slot of a memory that an open alert says something about. */
  addHoldingMemory(create: () => HoldingMemory): number {
    const slot = this.addMemory(create);
    // Under a `not` an open alert says that it did not hold, which is how a memory begins.
    if (!this.isNegated) this.#restorers.push({ slot, level: this.level });
    return slot;
  }

  /** Evaluated at least so often, without a reading. */
  needTick(operator: TimedOperator, micros: number): void {
    this.timed.push(operator);
    this.tickMicros = Math.min(this.tickMicros ?? Infinity, micros);
  }

  needHistory(micros: number): void {
    this.historyMicros = Math.max(this.historyMicros, micros);
  }

  needSamples(count: number): void {
    this.historySamples = Math.max(this.historySamples, count);
  }

  createMemory(): OperatorMemory[] {
    return this.#memories.length === 0 ? NO_MEMORY : this.#memories.map((create) => create());
  }

  restoreMemory(memory: readonly OperatorMemory[], level: Level, activeAtMicros: number): void {
    for (const restorer of this.#restorers) {
      if (restorer.level > level) continue;
      (memory[restorer.slot] as HoldingMemory).hold(activeAtMicros);
    }
  }
}

/** The longest time between two evaluations that still notices in time that something ended. */
const TICK_MICROS_MAX = 60_000_000;
const SECOND_MICROS = 1_000_000;

/** How often something that lasts so long is looked at: whole seconds, a second to a minute. */
export function tickOf(spanMicros: number): number {
  const seconds = Math.floor(spanMicros / 20 / SECOND_MICROS);
  return Math.min(Math.max(seconds, 1) * SECOND_MICROS, TICK_MICROS_MAX);
}

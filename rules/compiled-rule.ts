import type { RuleDefinition } from './rule.ts';
import type { Level } from './severity.ts';

/**
 * One series of a device as conditions see it: its newest reading that was evaluated. The evaluator owns
 * and changes it; several rules share it.
 */
export interface Series {
  readonly metric: string;
  /** Microseconds since 1970; -Infinity before the first reading. */
  timeMicros: number;
  /** NaN of a text and before the first reading. Of a boolean 1 or 0. */
  value: number;
  /** Null of a number or a boolean. */
  text: string | null;
}

/** An event of a device, while it is evaluated. */
export interface EventInput {
  readonly name: string;
  readonly content: unknown;
}

/** What is known of a device's connection. */
export type ConnectionState = 'online' | 'sleeping' | 'offline' | 'never';

/** Why nothing comes of a device. `garbage`: messages come, and none can be stored. */
export type Silence = 'offline' | 'silent' | 'garbage';

/** What other devices say, for comparisons with them. */
export interface FleetValues {
  /** Over the newest values of the devices of an organization with a tag; NaN when there are none. */
  value(fn: 'avg' | 'min' | 'max' | 'median', tag: string, metric: string): number;
}

/**
 * What one rule is evaluated with for one device. Made once for each (rule, device) and changed in place:
 * evaluation allocates nothing.
 */
export interface EvaluationContext {
  /** Event time of what is evaluated, in microseconds since 1970. Never goes back. */
  timeMicros: number;
  /** By operand index: `CompiledRule.metrics[i]`. */
  readonly series: readonly Series[];
  /** What the rule's operators remember; of `CompiledRule.createMemory`. */
  readonly memory: readonly OperatorMemory[];
  /** The event that is evaluated; null of a reading or a timer. */
  event: EventInput | null;
  connection: ConnectionState;
  /** Set while the device is silent beyond its deadline. */
  silence: Silence | null;
  readonly fleet: FleetValues;
}

/** What an operator remembers between evaluations. Plain and bounded. */
export interface OperatorMemory {
  /** Forgets everything, as before the first evaluation. */
  reset(): void;
}

/** One input of an evaluation, for people: what was looked at, and what it was. */
export interface Operand {
  /** As the rule has it: `temp`, `avg(temp, 5m)`, `event door.open`, `connection`. */
  readonly name: string;
  /** Null when there was none. */
  readonly value: number | string | boolean | null;
  /** Of the sample it comes from; null when it comes from none. */
  readonly timeMicros: number | null;
  /** What it was held against, with its operator: `> 80`; null when with nothing. */
  readonly against: string | null;
  readonly holds: boolean;
}

/** A rule that can be evaluated. Has no state of its own: that is in the context. */
export interface CompiledRule {
  /** Key inside. */
  readonly ruleId: number;
  readonly publicId: string;
  readonly organizationId: number;
  readonly name: string;
  readonly version: number;
  readonly mode: 'enabled' | 'shadow';
  readonly definition: RuleDefinition;
  /** Metrics that it looks at, each once; the index is the operand index. */
  readonly metrics: readonly string[];
  /** Names of events that it waits for, each once. */
  readonly events: readonly string[];
  readonly usesConnection: boolean;
  /** Null when it does not look for silence; see `no-data.ts`. */
  readonly noData: {
    readonly afterMicros: number | 'auto';
    readonly kinds: readonly Silence[];
  } | null;
  /**
   * Time may change its verdict without a reading (schedules, events that hold, counts over time): then it
   * is evaluated at least at every multiple of this since 1970; else null. Whole seconds.
   */
  readonly tickMicros: number | null;
  /**
   * The time, later than that of the context, before which its verdict cannot change without a reading or
   * an event: a tick before it is in vain. Infinity: not at all, and always while `tickMicros` is null.
   */
  changesAt(context: EvaluationContext): number;
  /** How far back readings must be fed in to rebuild its windows by time; 0 when it has none. */
  readonly historyMicros: number;
  /** How many samples of each metric must be fed in to rebuild its windows by count; 0 when it has none. */
  readonly historySamples: number;
  createMemory(): OperatorMemory[];
  /**
   * Sets in fresh memory what readings alone do not tell (a hysteresis between its two thresholds, an
   * event that still holds), as it must have been with an alert of that level open. To be called before
   * history is fed in; readings that say otherwise win.
   */
  restoreMemory(memory: readonly OperatorMemory[], level: Level, activeAtMicros: number): void;
  /**
   * Whether its condition holds now: 0, or the highest level whose condition holds. Hot path: allocates
   * nothing. Changes `memory`: to be called once for each sample, in order of event time. Never throws.
   */
  evaluate(context: EvaluationContext): Level;
  /**
   * Whether the last {@link evaluate} gave 0 only because nothing can be said: a value is no number, a text
   * where a number is wanted, or cannot be computed. An alert that fires stays as it is then. Never while
   * one of the metrics was not sent yet: other devices of the rule may have it.
   */
  isUnknown(context: EvaluationContext): boolean;
  /** What the last {@link evaluate} looked at, for the history of the alert. Allocates. */
  operands(context: EvaluationContext): Operand[];
}

// HOT PATH: once for each evaluation; bench/rules-conditions.ts
import type { EvaluationContext, Operand, Series } from '../compiled-rule.ts';
import { compileCel, inputName, type CelProgram } from './cel-program.ts';
import type { Condition } from './condition.ts';
import { EventMemory } from './device-state.ts';
import type {
  ConditionCounters,
  FedOperator,
  Operator,
  RuleParts,
  TimedOperator,
} from './operator.ts';
import { FALSE, TRUE, UNKNOWN, type Truth } from './truth.ts';
import { seriesOperand, shownText } from './words.ts';

interface Input {
  readonly name: string;
  readonly series: number;
  readonly isText: boolean;
  readonly isBoolean: boolean;
  readonly isAny: boolean;
}

/**
 * A condition in the Common Expression Language. Unknown while one of its metrics has no reading, or one of
 * another kind. An evaluation that ends in an error counts as not holding, and is counted.
 * @throws {CelFault}
 */
export function compileCelCondition(
  { expression }: Extract<Condition, { kind: 'cel' }>,
  parts: RuleParts,
): Operator {
  const program = compileCel(expression);
  const inputs = program.syntax.metrics.map((metric, index) => {
    const type = program.types.get(metric);
    return {
      name: inputName(index),
      series: parts.seriesIndex(metric),
      isText: type === 'string',
      isBoolean: type === 'bool',
      isAny: type === 'dyn',
    };
  });
  for (const name of program.syntax.events) parts.events.add(name);
  if (program.syntax.inputs.has('connection')) parts.usesConnection = true;
  const operator = new CelOperator(program, inputs, parts.counters);
  if (!program.syntax.inputs.has('event')) return operator;
  const ofEvents = new EventCelOperator(
    operator,
    program.syntax.events,
    parts.addMemory(() => new EventMemory()),
  );
  parts.fed.push(ofEvents);
  parts.needTick(ofEvents, EVENT_TICK_MICROS);
  return ofEvents;
}

/** After an event there is an evaluation without it. */
const EVENT_TICK_MICROS = 1_000_000;

/** An expression that asks for the event: it may say something else as soon as that is over. */
class EventCelOperator implements FedOperator, TimedOperator {
  readonly #operator: CelOperator;
  readonly #events: readonly string[];
  readonly #slot: number;

  constructor(operator: CelOperator, events: readonly string[], slot: number) {
    this.#operator = operator;
    this.#events = events;
    this.#slot = slot;
  }

  feed(context: EvaluationContext): void {
    if (context.event === null || !this.#events.includes(context.event.name)) return;
    (context.memory[this.#slot] as EventMemory).eventMicros = context.timeMicros;
  }

  truth(context: EvaluationContext): Truth {
    return this.#operator.truth(context);
  }

  changesAt(context: EvaluationContext): number {
    const { eventMicros } = context.memory[this.#slot] as EventMemory;
    return eventMicros >= context.timeMicros ? eventMicros + 1 : Infinity;
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    this.#operator.addOperands(context, operands);
  }
}

class CelOperator implements Operator {
  readonly #program: CelProgram;
  readonly #inputs: readonly Input[];
  readonly #counters: ConditionCounters;
  /** Filled anew for each evaluation; nothing but what is declared. */
  readonly #values: Record<string, number | boolean | string> = Object.create(null) as Record<
    string,
    number | boolean | string
  >;

  constructor(program: CelProgram, inputs: readonly Input[], counters: ConditionCounters) {
    this.#program = program;
    this.#inputs = inputs;
    this.#counters = counters;
  }

  truth(context: EvaluationContext): Truth {
    if (!this.#fill(context)) return UNKNOWN;
    try {
      return this.#program.run(this.#values) === true ? TRUE : FALSE;
    } catch {
      this.#counters.celFailures += 1;
      return UNKNOWN;
    }
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    const truth = this.truth(context);
    const holds = truth === TRUE;
    operands.push({
      name: shownText(this.#program.syntax.source),
      value: truth === UNKNOWN ? null : holds,
      timeMicros: null,
      against: null,
      holds,
    });
    for (const { series } of this.#inputs) {
      operands.push(seriesOperand(context.series[series] as Series, null, holds));
    }
  }

  #fill(context: EvaluationContext): boolean {
    const values = this.#values;
    for (let at = 0; at < this.#inputs.length; at += 1) {
      const input = this.#inputs[at] as Input;
      const { value, text } = context.series[input.series] as Series;
      if (text !== null ? !(input.isText || input.isAny) : input.isText || value - value !== 0) {
        return false;
      }
      values[input.name] = text ?? (input.isBoolean ? value !== 0 : value);
    }
    values['event'] = context.event === null ? '' : context.event.name;
    values['connection'] = context.connection;
    return true;
  }
}

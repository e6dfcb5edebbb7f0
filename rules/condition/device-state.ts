// HOT PATH: once for each evaluation
import type { EvaluationContext, Operand, Silence } from '../compiled-rule.ts';
import { formatDuration } from '../../duration.ts';
import type { Condition } from './condition.ts';
import {
  tickOf,
  type FedOperator,
  type HoldingMemory,
  type Operator,
  type RuleParts,
  type TimedOperator,
} from './operator.ts';
import { FALSE, TRUE, type Truth } from './truth.ts';

/** What a device is, for people. */
const SILENCE_WORDS: Readonly<Record<Silence, string>> = {
  offline: 'offline',
  silent: 'silent',
  garbage: 'sending garbage',
};

type Event = Extract<Condition, { kind: 'event' }>;
type Connection = Extract<Condition, { kind: 'connection' }>;
type NoData = Extract<Condition, { kind: 'noData' }>;

/** Holds from an event on, for a while: [event, event + holds), and always at the event itself. */
export function compileEvent(condition: Event, parts: RuleParts): FedOperator {
  parts.events.add(condition.name);
  const slot = parts.addHoldingMemory(() => new EventMemory());
  const operator = new EventOperator(slot, condition);
  parts.needTick(operator, tickOf(condition.holdsMicros));
  parts.fed.push(operator);
  return operator;
}

/** Holds while the device's connection is in one state. */
export function compileConnection(condition: Connection, parts: RuleParts): Operator {
  parts.usesConnection = true;
  return new ConnectionOperator(condition);
}

/** Holds while the device is silent in one of these ways. When that is, `no-data.ts` says. */
export function compileNoData(condition: NoData, parts: RuleParts): Operator {
  const { afterMicros, kinds } = condition;
  const others = parts.noData?.kinds ?? [];
  parts.noData = {
    afterMicros: parts.noData?.afterMicros ?? afterMicros,
    kinds: [...others, ...kinds.filter((kind) => !others.includes(kind))],
  };
  return new NoDataOperator(condition);
}

/** When an event was. */
export class EventMemory implements HoldingMemory {
  /** Of the newest event with that name. */
  eventMicros = -Infinity;

  reset(): void {
    this.eventMicros = -Infinity;
  }

  hold(activeAtMicros: number): void {
    this.eventMicros = activeAtMicros;
  }
}

class EventOperator implements FedOperator, TimedOperator {
  readonly #slot: number;
  readonly #name: string;
  readonly #holdsMicros: number;

  constructor(slot: number, { name, holdsMicros }: Event) {
    this.#slot = slot;
    this.#name = name;
    this.#holdsMicros = holdsMicros;
  }

  feed(context: EvaluationContext): void {
    if (context.event === null || context.event.name !== this.#name) return;
    (context.memory[this.#slot] as EventMemory).eventMicros = context.timeMicros;
  }

  truth(context: EvaluationContext): Truth {
    if (context.event !== null && context.event.name === this.#name) return TRUE;
    const { eventMicros } = context.memory[this.#slot] as EventMemory;
    return context.timeMicros - eventMicros < this.#holdsMicros ? TRUE : FALSE;
  }

  changesAt(context: EvaluationContext): number {
    const { eventMicros } = context.memory[this.#slot] as EventMemory;
    // Behind an event that holds for no time it is over a microsecond later.
    const endMicros = eventMicros + Math.max(this.#holdsMicros, 1);
    return endMicros > context.timeMicros ? endMicros : Infinity;
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    const { eventMicros } = context.memory[this.#slot] as EventMemory;
    const isSeen = eventMicros > -Infinity;
    operands.push({
      name: `event ${this.#name}`,
      value: isSeen ? 'seen' : null,
      timeMicros: isSeen ? eventMicros : null,
      against: this.#holdsMicros === 0 ? 'now' : `in the last ${formatDuration(this.#holdsMicros)}`,
      holds: this.truth(context) === TRUE,
    });
  }
}

class ConnectionOperator implements Operator {
  readonly #condition: Connection;

  constructor(condition: Connection) {
    this.#condition = condition;
  }

  truth(context: EvaluationContext): Truth {
    return context.connection === this.#condition.is ? TRUE : FALSE;
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    operands.push({
      name: 'connection',
      value: context.connection,
      timeMicros: null,
      against: `== ${this.#condition.is}`,
      holds: this.truth(context) === TRUE,
    });
  }
}

class NoDataOperator implements Operator {
  readonly #condition: NoData;

  constructor(condition: NoData) {
    this.#condition = condition;
  }

  truth(context: EvaluationContext): Truth {
    const { silence } = context;
    return silence !== null && this.#condition.kinds.includes(silence) ? TRUE : FALSE;
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    const { afterMicros, kinds } = this.#condition;
    const after = afterMicros === 'auto' ? 'its usual gaps' : formatDuration(afterMicros);
    operands.push({
      name: 'device',
      value: context.silence === null ? 'sending' : SILENCE_WORDS[context.silence],
      timeMicros: null,
      against: `${kinds.join(' or ')} for longer than ${after}`,
      holds: this.truth(context) === TRUE,
    });
  }
}

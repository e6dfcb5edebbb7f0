// HOT PATH: several times for each evaluation
import type { EvaluationContext, Operand } from '../compiled-rule.ts';
import type { Operator } from './operator.ts';
import { FALSE, TRUE, UNKNOWN, type Truth } from './truth.ts';

/** Holds when all do. False as soon as one is; unknown when none is false and one is unknown. */
export class AllOperator implements Operator {
  readonly #parts: readonly Operator[];

  constructor(parts: readonly Operator[]) {
    this.#parts = parts;
  }

  truth(context: EvaluationContext): Truth {
    const parts = this.#parts;
    let truth: Truth = TRUE;
    for (let at = 0; at < parts.length; at += 1) {
      const part = (parts[at] as Operator).truth(context);
      if (part === FALSE) return FALSE;
      if (part === UNKNOWN) truth = UNKNOWN;
    }
    return truth;
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    for (const part of this.#parts) part.addOperands(context, operands);
  }
}

/** Holds when one does. Unknown when none does and one is unknown. */
export class AnyOperator implements Operator {
  readonly #parts: readonly Operator[];

  constructor(parts: readonly Operator[]) {
    this.#parts = parts;
  }

  truth(context: EvaluationContext): Truth {
    const parts = this.#parts;
    let truth: Truth = FALSE;
    for (let at = 0; at < parts.length; at += 1) {
      const part = (parts[at] as Operator).truth(context);
      if (part === TRUE) return TRUE;
      if (part === UNKNOWN) truth = UNKNOWN;
    }
    return truth;
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    for (const part of this.#parts) part.addOperands(context, operands);
  }
}

/** Holds when its part is false, not when it is unknown: what was never measured is not below 80 either. */
export class NotOperator implements Operator {
  readonly #part: Operator;

  constructor(part: Operator) {
    this.#part = part;
  }

  truth(context: EvaluationContext): Truth {
    const part = this.#part.truth(context);
    return part === UNKNOWN ? UNKNOWN : part === TRUE ? FALSE : TRUE;
  }

  addOperands(context: EvaluationContext, operands: Operand[]): void {
    this.#part.addOperands(context, operands);
  }
}

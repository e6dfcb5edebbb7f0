// HOT PATH: several times for each evaluation
import type { NumberOperator } from './condition.ts';

/** Whether a condition holds. Unknown: what it looks at was never there, or cannot be computed. */
export type Truth = 0 | 1 | 2;

/** It does not hold. */
export const FALSE = 0;
/** It holds. */
export const TRUE = 1;
/** Neither: counts as not holding, and so does its negation. */
export const UNKNOWN = 2;

/** Holds one number against another. Unknown when one of them is not finite. */
export function compareNumbers(op: NumberOperator, left: number, right: number): Truth {
  // NaN and both infinities: a number that is none of them gives 0.
  if (left - left !== 0 || right - right !== 0) return UNKNOWN;
  switch (op) {
    case '>':
      return left > right ? TRUE : FALSE;
    case '>=':
      return left >= right ? TRUE : FALSE;
    case '<':
      return left < right ? TRUE : FALSE;
    case '<=':
      return left <= right ? TRUE : FALSE;
    case '==':
      return left === right ? TRUE : FALSE;
    case '!=':
      return left === right ? FALSE : TRUE;
  }
}

/** The operator that ends a hysteresis at its clear threshold: `> 80` is over at `<= 75`. */
export function clearingOperator(op: NumberOperator): '<=' | '>=' {
  return op === '>' || op === '>=' ? '<=' : '>=';
}

import type { Held } from './alert.ts';
import type { Operand } from '../compiled-rule.ts';
import type { Level } from '../severity.ts';
import type { Transition } from './transition.ts';

/** Largest `detail` of a transition, in bytes of PostgreSQL's text of it. */
export const DETAIL_BYTES_MAX = 1024;

/** What an alert waited for behind a step, in event time; see `AlertState`. */
export interface TransitionTimers {
  readonly level: Level;
  readonly activeAt: number | null;
  readonly firedAt: number | null;
  readonly clearSince: number | null;
  readonly raise: Held | null;
  readonly lower: Held | null;
}

/** What is kept of a step beside its columns: enough to say in words why it was taken. */
export interface TransitionDetail {
  readonly operands: readonly Operand[];
  /** Operands left out, from the end, because all of them were more than {@link DETAIL_BYTES_MAX}. */
  readonly operandsCut: number;
  /** Of the first metric of the rule. */
  readonly value: number | string | null;
  readonly timers: TransitionTimers;
  readonly occurrences: number;
  /** As recorded by another program: this one came to the same alert from another beginning. */
  readonly adoptedFrom?: string;
}

/** Texts are cut to so many UTF-16 units, with a mark behind. */
const TEXT_LENGTH_MAX = 80;
const MARK = '…';

/** The detail of a step, at most {@link DETAIL_BYTES_MAX}: texts are cut first, then operands left out. */
export function detailOf(transition: Transition, adoptedFrom?: string): TransitionDetail {
  const { level, activeAt, firedAt, clearSince, raise, lower } = transition.state;
  const operands = transition.operands.map(cutOperand);
  const { value } = transition;
  const rest = {
    value: typeof value === 'string' ? cutText(value) : value,
    timers: { level, activeAt, firedAt, clearSince, raise, lower },
    occurrences: transition.occurrences,
    ...(adoptedFrom === undefined ? {} : { adoptedFrom }),
  };
  for (let kept = operands.length; ; kept -= 1) {
    const operandsCut = operands.length - kept;
    const detail = { operands: operands.slice(0, kept), operandsCut, ...rest };
    if (kept === 0 || jsonbBytes(detail) <= DETAIL_BYTES_MAX) return detail;
  }
}

/** The detail that a row has; what a later version has added to it is left as it is. */
export function readDetail(json: unknown): TransitionDetail {
  return json as TransitionDetail;
}

function cutOperand(operand: Operand): Operand {
  const { name, value, against } = operand;
  return {
    ...operand,
    name: cutText(name),
    value: typeof value === 'string' ? cutText(value) : value,
    against: against === null ? null : cutText(against),
  };
}

function cutText(text: string): string {
  return text.length <= TEXT_LENGTH_MAX ? text : text.slice(0, TEXT_LENGTH_MAX) + MARK;
}

/** Bytes of the text that PostgreSQL makes of a jsonb: a blank behind each colon and comma. */
function jsonbBytes(value: unknown): number {
  if (typeof value === 'number') return numberBytes(value);
  if (value === null || typeof value !== 'object') return Buffer.byteLength(JSON.stringify(value));
  if (Array.isArray(value)) {
    const items: readonly unknown[] = value;
    return items.reduce<number>((sum, item) => sum + jsonbBytes(item) + 2, 2);
  }
  return Object.entries(value).reduce(
    (sum, [key, member]) => sum + key.length + 4 + jsonbBytes(member) + 2,
    2,
  );
}

/** Jsonb writes all the digits of a number: 1e300 has 301 of them. */
function numberBytes(value: number): number {
  if (!Number.isFinite(value)) return 4;
  const text = String(value);
  const exponent = /e[+-](\d+)$/.exec(text)?.[1];
  return text.length + (exponent === undefined ? 0 : Number(exponent));
}

import type { Operand, Series } from '../compiled-rule.ts';
import { formatDuration } from '../../duration.ts';
import type { Condition, Window } from './condition.ts';
import { clearingOperator } from './truth.ts';

/** Longest text that an operand has in any member, in characters: of texts that devices send, too. */
const TEXT_CHARS_MAX = 120;

/** What a comparison holds its metric against: `> 80 until <= 75, dead band 0.5`. */
export function againstOf(condition: {
  readonly op: Extract<Condition, { kind: 'compare' }>['op'];
  readonly value: number | boolean | string;
  readonly clear: number | null;
  readonly deadBand?: number | null;
}): string {
  const { op, value, clear, deadBand = null } = condition;
  const threshold = typeof value === 'string' ? JSON.stringify(shownText(value)) : String(value);
  const until = clear === null ? '' : ` until ${clearingOperator(op)} ${clear}`;
  const band = deadBand === null ? '' : `, dead band ${deadBand}`;
  return `${op} ${threshold}${until}${band}`;
}

/** What a comparison with a computed number holds against: `> 1.5 × setpoint + 5`. */
export function scaledName(name: string, times: number, plus: number): string {
  const scaled = times === 1 ? name : `${times} × ${name}`;
  if (plus === 0) return scaled;
  return plus < 0 ? `${scaled} - ${-plus}` : `${scaled} + ${plus}`;
}

/** The newest reading of a metric as an operand. */
export function seriesOperand(series: Series, against: string | null, holds: boolean): Operand {
  const value = shownValue(series);
  const timeMicros = value === null ? null : series.timeMicros;
  return { name: series.metric, value, timeMicros, against, holds };
}

/** `5m` or `10 samples`. */
export function windowName(window: Window): string {
  return 'samples' in window ? `${window.samples} samples` : formatDuration(window.spanMicros);
}

/** A number as an operand has it: null in place of one that is not finite. */
export function shownNumber(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

/** A text of somebody else, cut. */
export function shownText(text: string): string {
  return text.length > TEXT_CHARS_MAX ? `${text.slice(0, TEXT_CHARS_MAX - 1)}…` : text;
}

function shownValue({ value, text }: Series): number | string | null {
  return text === null ? shownNumber(value) : shownText(text);
}

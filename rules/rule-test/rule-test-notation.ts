import type { AlertPhase } from '../alert/alert.ts';
import type { ConnectionState, Silence } from '../compiled-rule.ts';
import { SEVERITIES, type Severity } from '../severity.ts';

/** Values of one notation; more are refused. */
export const STEPS_MAX = 100_000;

/** A value of a series; null: no reading at that time. */
export type SeriesValue = number | string | boolean | null;

/** What is expected of an alert; no severity: any will do. Null: nothing is expected. */
export type ExpectedState = {
  readonly phase: AlertPhase;
  readonly severity: Severity | null;
} | null;

/** What stands wrong in a notation. */
export class NotationFault extends Error {}

const NUMBER = String.raw`[+-]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,3})?`;
const STEPPED = new RegExp(`^(${NUMBER})(?:([+-](?:\\d+(?:\\.\\d+)?|\\.\\d+))x(\\d{1,6}))?$`);
const REPEATED = /^(.+?)(?:([x*])(\d{1,6}))?$/s;
/** A token ends at white space that is not within quotes. */
const TOKEN = /(?:"(?:[^"\\]|\\.)*"|[^\s"])+/g;
const CONNECTIONS: readonly string[] = ['online', 'sleeping', 'offline', 'never'];
const SILENCES: readonly string[] = ['offline', 'silent', 'garbage'];

/**
 * The values of a series as promtool writes them: `0 1 2`, `1x4` (1 and the same four times more),
 * `1+2x3` (1 3 5 7), `10-1x2`, `_` (no reading), `_x5` (five times none); and beyond that `85*4` (85 four
 * times), `true`, `false` and `"text"`.
 * @throws {NotationFault}
 */
export function parseSeries(notation: string): SeriesValue[] {
  return expand(
    notation,
    (token) => {
      const [, first, step, times] = STEPPED.exec(token) ?? [];
      if (first === undefined) return null;
      const start = Number(first);
      if (step === undefined) return [start];
      return Array.from({ length: Number(times) + 1 }, (_, index) => start + index * Number(step));
    },
    readValue,
  );
}

/**
 * States, one for each value: `inactive pending firing`, `firing:critical`, `_` (whatever it is),
 * `pending*3` (three times), `pendingx3` (four times, as promtool counts).
 * @throws {NotationFault}
 */
export function parseStates(notation: string): ExpectedState[] {
  return expand(notation, () => null, readState);
}

/** Connections, one for each step; `_`: as before. @throws {NotationFault} */
export function parseConnections(notation: string): (ConnectionState | null)[] {
  return expand(
    notation,
    () => null,
    (token) => {
      if (token === '_') return null;
      if (CONNECTIONS.includes(token)) return token as ConnectionState;
      throw new NotationFault(`${token} is none of ${CONNECTIONS.join(', ')}`);
    },
  );
}

/** Silences, one for each step; `none`: not silent, `_`: as before. @throws {NotationFault} */
export function parseSilences(notation: string): (Silence | 'none' | null)[] {
  return expand(
    notation,
    () => null,
    (token) => {
      if (token === '_') return null;
      if (token === 'none' || SILENCES.includes(token)) return token as Silence | 'none';
      throw new NotationFault(`${token} is none of ${SILENCES.join(', ')}, none`);
    },
  );
}

/** @throws {NotationFault} when it is no state. */
export function readState(token: string): ExpectedState {
  if (token === '_') return null;
  const [phase, severity, more] = token.split(':');
  const isPhase = phase === 'inactive' || phase === 'pending' || phase === 'firing';
  const known = SEVERITIES.find((one) => one === severity) ?? null;
  const isSeverity = severity === undefined || (known !== null && phase !== 'inactive');
  if (isPhase && isSeverity && more === undefined) return { phase, severity: known };
  throw new NotationFault(
    `${token} is no state: inactive, pending, firing or firing:SEVERITY of ${SEVERITIES.join(', ')}`,
  );
}

/** @param readRun what is more than one value by itself; null: it is not of that kind. */
function expand<T>(
  notation: string,
  readRun: (token: string) => T[] | null,
  readOne: (token: string) => T,
): T[] {
  const values: T[] = [];
  for (const token of tokensOf(notation)) {
    const run = readRun(token) ?? repeat(token, readOne);
    if (values.length + run.length > STEPS_MAX) {
      throw new NotationFault(`more than ${STEPS_MAX} values`);
    }
    for (const value of run) values.push(value);
  }
  return values;
}

function repeat<T>(token: string, readOne: (token: string) => T): T[] {
  const [, one = token, sign, times] = REPEATED.exec(token) ?? [];
  const value = readOne(one);
  // Promtool's _x3 is three, and its 1x3 is four.
  const count = sign === 'x' && one !== '_' ? Number(times) + 1 : Number(times ?? 1);
  if (count > STEPS_MAX) throw new NotationFault(`${token}: more than ${STEPS_MAX} values`);
  return Array.from({ length: count }, () => value);
}

function tokensOf(notation: string): readonly string[] {
  const tokens = notation.match(TOKEN) ?? [];
  // Whatever is left over is a quote that is not closed.
  if (notation.replace(TOKEN, '').trim() !== '') throw new NotationFault('a " is not closed');
  return tokens;
}

function readValue(token: string): SeriesValue {
  if (token === '_') return null;
  if (token === 'true' || token === 'false') return token === 'true';
  if (token.startsWith('"')) {
    try {
      return JSON.parse(token) as string;
    } catch {
      throw new NotationFault(`${token} is not a text in quotes`);
    }
  }
  if (new RegExp(`^${NUMBER}$`).test(token)) return Number(token);
  if (token === 'stale') {
    throw new NotationFault('stale: a reading holds until the next one; _ is no reading');
  }
  throw new NotationFault(`${token} is no value: a number, true, false, "text" or _`);
}

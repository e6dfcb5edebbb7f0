import type { RuleTest } from './rule-test-schema.ts';
import type { Transition } from '../alert/transition.ts';

/** A place where an alert was looked at. */
export interface RuleTestRow {
  /** Since the start of the test. */
  readonly atMicros: number;
  /** What came in at that time: metrics with values, events, changes. */
  readonly input: string;
  readonly expected: string;
  readonly actual: string;
  readonly isRight: boolean;
}

type Fields = Readonly<Record<string, unknown>>;

/** Of a transition that nobody expects. */
const SHOWN_OF_UNEXPECTED = ['at', 'from', 'to', 'reason', 'severity'];

/** The transitions of one rule held against those that its test expects, in order of time. */
export function compareTransitions(
  { transitions = [], rules, startMicros }: RuleTest,
  ruleName: string,
  made: readonly Transition[],
): RuleTestRow[] {
  const isOnly = rules.length === 1;
  const wanted = transitions.filter(
    ({ rule }) => rule === ruleName || (isOnly && rule === undefined),
  );
  // Each alert has its own in order already, and the sort is stable.
  const inOrder = made.toSorted((one, other) => one.atMicros - other.atMicros);
  return Array.from({ length: Math.max(wanted.length, made.length) }, (_, index) => {
    const want = wanted[index];
    const got = inOrder[index];
    const wantFields = want === undefined ? null : fieldsOf(want);
    const gotFields = got === undefined ? null : fieldsOfTransition(got, startMicros);
    const keys = wantFields === null ? SHOWN_OF_UNEXPECTED : Object.keys(wantFields);
    const expected = shownOf(wantFields, keys);
    const actual = shownOf(gotFields, keys);
    return {
      atMicros: want?.at ?? (got?.atMicros ?? startMicros) - startMicros,
      input: `transition ${index}`,
      expected,
      actual,
      isRight: expected === actual,
    };
  });
}

/** A duration since the start, for people. */
export function seconds(micros: number): string {
  return `${micros / 1_000_000}s`;
}

function fieldsOf(wanted: NonNullable<RuleTest['transitions']>[number]): Fields {
  const { rule: _rule, at, ...rest } = wanted;
  return { at: seconds(at), ...rest };
}

function fieldsOfTransition(made: Transition, startMicros: number): Fields {
  const { atMicros, to, from, groupKey, reason, severity, value, occurrences, annotations } = made;
  const at = seconds(atMicros - startMicros);
  return { at, to, from, group: groupKey, reason, severity, value, occurrences, annotations };
}

function shownOf(fields: Fields | null, keys: readonly string[]): string {
  if (fields === null) return 'nothing';
  return keys.map((key) => `${key}=${shown(fields[key])}`).join(' ');
}

function shown(field: unknown): string {
  return typeof field === 'string' ? field : JSON.stringify(field);
}

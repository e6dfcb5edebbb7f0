import { parseDocument } from 'yaml';
import { z } from 'zod';
import { deviceNameSchema, EVENT_NAME, METRIC_NAME } from '../../firmware-protocol/contract.ts';
import { RuleInvalidError } from '../../rule-errors.ts';
import { DURATION_HINT, parseDuration } from '../../duration.ts';
import type { RuleDefinition } from '../rule.ts';
import { faultsOf } from '../rule-faults.ts';
import { parseRule } from '../rule-schema.ts';
import {
  NotationFault,
  parseConnections,
  parseSeries,
  parseSilences,
  parseStates,
  readState,
} from './rule-test-notation.ts';
import { SEVERITIES } from '../severity.ts';

/** Characters of a file of tests. */
const FILE_CHARS_MAX = 1_000_000;
const TESTS_MAX = 1000;
const LIST_MAX = 10_000;
const PHASES = ['inactive', 'pending', 'firing'] as const;

const duration = z.string().transform((given, context): number => {
  const micros = parseDuration(given);
  if (micros !== null) return micros;
  context.addIssue(DURATION_HINT);
  return z.NEVER;
});
const start = z.iso.datetime({ offset: true }).transform((given) => Date.parse(given) * 1000);
const metric = z.string().regex(METRIC_NAME, 'must be the name of a metric');
const value = z.union([z.number(), z.boolean(), z.string()]);
const states = notation(parseStates);
const setting = {
  interval: duration.refine((micros) => micros > 0, 'must be more than 0').optional(),
  start: start.optional(),
  device: deviceNameSchema.optional(),
};

const testSchema = z.strictObject({
  name: z.string().min(1).max(200),
  ...setting,
  rules: z.array(z.unknown()).min(1).max(50).optional(),
  series: z.record(metric, notation(parseSeries)).default({}),
  connection: notation(parseConnections).optional(),
  silence: notation(parseSilences).optional(),
  fleet: z
    .array(
      z.strictObject({
        fn: z.enum(['avg', 'min', 'max', 'median']),
        tag: z.string(),
        metric,
        values: notation(parseSeries),
      }),
    )
    .max(100)
    .default([]),
  events: z
    .array(
      z.strictObject({
        at: duration,
        arrives: duration.optional(),
        name: z.string().regex(EVENT_NAME, 'must be the name of an event'),
        content: z.unknown().default(null),
      }),
    )
    .max(LIST_MAX)
    .default([]),
  readings: z
    .array(
      z.strictObject({
        at: duration,
        arrives: duration.optional(),
        values: z.record(metric, value),
      }),
    )
    .max(LIST_MAX)
    .default([]),
  expect: z.union([states, z.record(z.string(), states)]).optional(),
  states: z
    .array(
      z.strictObject({
        at: duration,
        rule: z.string().optional(),
        group: z.string().optional(),
        state: z.string().transform((given, context) => read(() => readState(given), context)),
      }),
    )
    .max(LIST_MAX)
    .default([]),
  transitions: z
    .array(
      z.strictObject({
        at: duration,
        to: z.enum(PHASES),
        from: z.enum(PHASES).optional(),
        rule: z.string().optional(),
        group: z.string().optional(),
        reason: z.string().optional(),
        severity: z.enum(SEVERITIES).optional(),
        value: z.union([z.number(), z.string(), z.null()]).optional(),
        occurrences: z.number().int().optional(),
        annotations: z.record(z.string(), z.string()).optional(),
      }),
    )
    .max(LIST_MAX)
    .optional(),
});

const fileSchema = z.strictObject({
  ...setting,
  rules: z.array(z.unknown()).max(50).default([]),
  tests: z.array(testSchema).min(1).max(TESTS_MAX),
});

type ParsedTest = z.output<typeof testSchema>;
type Expectations = ReadonlyMap<string, ReturnType<typeof parseStates>>;

/** A test of rules, checked; times are microseconds since its `startMicros`. */
export interface RuleTest extends Omit<
  ParsedTest,
  'rules' | 'interval' | 'start' | 'device' | 'expect'
> {
  readonly rules: readonly RuleDefinition[];
  readonly intervalMicros: number;
  readonly startMicros: number;
  readonly deviceName: string;
  /** By the name of the rule: its state behind each step. */
  readonly expected: Expectations;
}

/**
 * The tests of a YAML file; `docs/rules.md` tells what it may say.
 * @throws {RuleInvalidError} with every fault of the first of: YAML, shape, rules, a test that cannot fail.
 */
export function parseRuleTests(yaml: string): RuleTest[] {
  if (yaml.length > FILE_CHARS_MAX) {
    throw fault('', `must not be longer than ${FILE_CHARS_MAX} characters`);
  }
  const { success, data, error } = fileSchema.safeParse(readYaml(yaml));
  if (!success) throw new RuleInvalidError(faultsOf(error));
  const shared = parseRules(data.rules, 'rules');
  const tests = data.tests.map(
    ({ rules, interval, start: from, device, expect, ...test }, index): RuleTest => {
      const path = `tests.${index}`;
      const own = rules === undefined ? shared : parseRules(rules, `${path}.rules`);
      return {
        ...test,
        rules: own,
        intervalMicros: interval ?? data.interval ?? 1_000_000,
        startMicros: from ?? data.start ?? Date.UTC(2026, 0, 1) * 1000,
        deviceName: device ?? data.device ?? 'device-1',
        expected: expectationsOf(expect, own, path),
      };
    },
  );
  const faults = tests.flatMap((test, index) => findTestFaults(test, `tests.${index}`));
  if (faults.length > 0) throw new RuleInvalidError(faults);
  return tests;
}

function readYaml(text: string): unknown {
  const document = parseDocument(text, {
    uniqueKeys: true,
    // A series 0x3 is 0 and three times more, and not the hexadecimal number.
    customTags: (tags) =>
      tags.filter((tag) => typeof tag === 'string' || !['HEX', 'OCT'].includes(tag.format ?? '')),
  });
  const [error] = [...document.errors, ...document.warnings];
  if (error !== undefined) throw fault('', error.message.split('\n', 1)[0] ?? 'is not YAML');
  try {
    return document.toJS({ maxAliasCount: 100 }) as unknown;
  } catch (cause) {
    throw fault('', cause instanceof Error ? cause.message : 'is not YAML');
  }
}

function parseRules(given: readonly unknown[], path: string): RuleDefinition[] {
  const rules = given.map((json, index) => {
    try {
      return parseRule(json);
    } catch (error) {
      if (!(error instanceof RuleInvalidError)) throw error;
      const below = (inner: string): string =>
        inner === '' ? `${path}.${index}` : `${path}.${index}.${inner}`;
      throw new RuleInvalidError(
        error.faults.map((one) => ({ path: below(one.path), message: one.message })),
      );
    }
  });
  const twice = rules.find(
    (rule, index) => rules.findIndex(({ name }) => name === rule.name) < index,
  );
  if (twice !== undefined) throw fault(path, `two rules have the name ${twice.name}`);
  return rules;
}

function expectationsOf(
  expect: ParsedTest['expect'],
  rules: readonly RuleDefinition[],
  path: string,
): Expectations {
  if (expect === undefined) return new Map();
  if (!Array.isArray(expect)) return new Map(Object.entries(expect));
  const [only, more] = rules;
  if (only === undefined) throw fault(path, 'there is no rule to be tested');
  if (more !== undefined) throw fault(`${path}.expect`, 'must name the rule: there are several');
  return new Map([[only.name, expect]]);
}

/** A test that cannot fail is no test; nor is one of which a part is never looked at. */
function findTestFaults(test: RuleTest, path: string): { path: string; message: string }[] {
  const faults: { path: string; message: string }[] = [];
  const { rules, expected, states: single, transitions } = test;
  const names = new Set(rules.map(({ name }) => name));
  const check = (asked: string | undefined, at: string): void => {
    if (asked === undefined && names.size > 1) {
      faults.push({ path: at, message: 'must name the rule: there are several' });
    } else if (asked !== undefined && !names.has(asked)) {
      faults.push({ path: at, message: `there is no rule ${asked}` });
    }
  };
  const stepCount = stepCountOf(test);
  for (const [rule, list] of expected) {
    check(rule, `${path}.expect`);
    if (list.length >= stepCount) continue;
    const message = `has ${list.length} states for ${stepCount} values; _ for those of no interest`;
    faults.push({ path: `${path}.expect`, message });
  }
  for (const [index, { rule }] of single.entries()) check(rule, `${path}.states.${index}`);
  for (const [index, { rule }] of (transitions ?? []).entries()) {
    check(rule, `${path}.transitions.${index}`);
  }
  const isAsked =
    [...expected.values()].some((list) => list.some((state) => state !== null)) ||
    single.some(({ state }) => state !== null) ||
    transitions !== undefined;
  if (!isAsked) faults.push({ path, message: 'expects nothing: a test that cannot fail' });
  return faults;
}

/** How many steps the inputs of a test have. */
export function stepCountOf({ series, connection, silence, fleet }: RuleTest): number {
  const lists = [...Object.values(series), ...fleet.map(({ values }) => values)];
  return Math.max(
    0,
    connection?.length ?? 0,
    silence?.length ?? 0,
    ...lists.map(({ length }) => length),
  );
}

function notation<T>(parse: (given: string) => T[]) {
  return z
    .union([z.string(), z.number(), z.boolean()])
    .transform((given, context) => read(() => parse(String(given)), context));
}

function read<T>(parse: () => T, context: z.core.$RefinementCtx): T {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof NotationFault)) throw error;
    context.addIssue(error.message);
    return z.NEVER;
  }
}

function fault(path: string, message: string): RuleInvalidError {
  return new RuleInvalidError([{ path, message }]);
}

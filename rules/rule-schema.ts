import { z } from 'zod';
import { deviceNameSchema } from '../firmware-protocol/contract.ts';
import { RuleInvalidError } from '../rule-errors.ts';
import { formatAction, RULE_ACTIONS_MAX, ruleActionSchema } from './action/rule-action.ts';
import { findTemplateFault } from './alert/annotation.ts';
import { listMetrics } from './compile.ts';
import { CONDITIONS_MAX, RULE_METRICS_MAX } from './condition/condition-bounds.ts';
import { conditionSchema, formatCondition } from './condition/condition-schema.ts';
import type { Condition } from './condition/condition.ts';
import { DURATION_HINT, formatDuration, parseDuration } from '../duration.ts';
import { faultsOf, strictObject, type RuleFault } from './rule-faults.ts';
import type { RuleDefinition } from './rule.ts';
import { levelOf, SEVERITIES } from './severity.ts';

const DAY_MICROS = 86_400_000_000;
/** The longest `for` and `keepFiringFor`. */
const HOLD_MICROS_MAX = 30 * DAY_MICROS;
/** Readings wait in memory for so long. */
const LATENESS_MICROS_MAX = DAY_MICROS;
const SCOPE_NAMES_MAX = 1000;
const PAIRS_MAX = 16;

const severity = z.enum(SEVERITIES);
const name = text(100);
const label = z
  .string()
  .regex(
    /^(?!__)[A-Za-z_][A-Za-z0-9_]{0,62}$/,
    'must be 1 to 63 letters, digits and _, with no digit first and no __ in front',
  );

/** A rule as the API has it. What comes out is a {@link RuleDefinition}, with defaults filled in. */
export const ruleSchema = strictObject({
  name,
  description: freeText(2000).default(''),
  mode: z.enum(['enabled', 'disabled', 'shadow']).default('enabled'),
  severity,
  scope: strictObject({
    devices: names(deviceNameSchema),
    tags: names(text(48)),
    types: names(text(48)),
  }).default({}),
  when: conditionSchema,
  levels: z
    .array(strictObject({ severity, when: conditionSchema }))
    .max(SEVERITIES.length - 1)
    .default([]),
  for: duration(HOLD_MICROS_MAX),
  keepFiringFor: duration(HOLD_MICROS_MAX),
  late: z.enum(['current-only', 're-evaluate', 'ignore']).default('current-only'),
  allowedLateness: duration(LATENESS_MICROS_MAX),
  groupBy: z
    .string()
    .regex(/^[A-Za-z_][A-Za-z0-9_.-]{0,63}$/, 'must be the name of a metric or a member of events')
    .nullable()
    .default(null),
  labels: pairs(text(200)),
  annotations: pairs(freeText(500)),
  suppressedBy: z
    .array(strictObject({ rule: name, device: deviceNameSchema.nullable().default(null) }))
    .max(PAIRS_MAX)
    .default([]),
  noiseBudgetPerDay: z.number().int().min(0).max(1_000_000).nullable().default(null),
  actions: z.array(ruleActionSchema).max(RULE_ACTIONS_MAX).default([]),
}).transform(
  ({ for: forMicros, keepFiringFor, allowedLateness, scope, ...rest }): RuleDefinition => ({
    ...rest,
    scope: withoutUndefined(scope),
    forMicros,
    keepFiringForMicros: keepFiringFor,
    allowedLatenessMicros: allowedLateness,
  }),
);

/**
 * The rule that a JSON value says.
 * @throws {RuleInvalidError} with every fault, each with its path: `levels.0.when.value`.
 */
export function parseRule(json: unknown): RuleDefinition {
  const { success, data, error } = ruleSchema.safeParse(json);
  if (!success) throw new RuleInvalidError(faultsOf(error));
  const faults = findFaults(data);
  if (faults.length > 0) throw new RuleInvalidError(faults);
  return data;
}

/** The JSON of a rule as the API has it, with every member; {@link parseRule} makes the same rule of it. */
export function formatRule(definition: RuleDefinition): Record<string, unknown> {
  const { when, levels, actions, forMicros, keepFiringForMicros, ...others } = definition;
  const { allowedLatenessMicros, ...rest } = others;
  return {
    ...rest,
    when: formatCondition(when),
    levels: levels.map((level) => ({ ...level, when: formatCondition(level.when) })),
    for: formatDuration(forMicros),
    keepFiringFor: formatDuration(keepFiringForMicros),
    allowedLateness: formatDuration(allowedLatenessMicros),
    actions: actions.map(formatAction),
  };
}

function findFaults(rule: RuleDefinition): RuleFault[] {
  const conditions = [rule.when, ...rule.levels.map(({ when }) => when)];
  const faults = [...findLevelFaults(rule), ...findBoundFaults(conditions)];
  const known = { metrics: listMetrics(conditions), labels: rule.labels };
  for (const [key, template] of Object.entries(rule.annotations)) {
    const message = findTemplateFault(template, known);
    if (message !== null) faults.push({ path: `annotations.${key}`, message });
  }
  return faults;
}

function findLevelFaults({ severity: least, levels }: RuleDefinition): RuleFault[] {
  const faults: RuleFault[] = [];
  for (const [index, { severity: own }] of levels.entries()) {
    const path = `levels.${index}.severity`;
    if (levelOf(own) <= levelOf(least)) {
      faults.push({ path, message: `must be worse than the severity of the rule, ${least}` });
    } else if (levels.findIndex((other) => other.severity === own) < index) {
      faults.push({ path, message: `there is a level ${own} already` });
    }
  }
  return faults;
}

function findBoundFaults(conditions: readonly Condition[]): RuleFault[] {
  const faults: RuleFault[] = [];
  const count = conditions.reduce((sum, condition) => sum + countConditions(condition), 0);
  if (count > CONDITIONS_MAX) {
    const message = `the rule has ${count} conditions, ${CONDITIONS_MAX} allowed`;
    faults.push({ path: 'when', message });
  }
  const metrics = listMetrics(conditions).length;
  if (metrics > RULE_METRICS_MAX) {
    const message = `the rule looks at ${metrics} metrics, ${RULE_METRICS_MAX} allowed`;
    faults.push({ path: 'when', message });
  }
  return faults;
}

function countConditions(condition: Condition): number {
  if (condition.kind === 'not') return 1 + countConditions(condition.of);
  if (condition.kind !== 'all' && condition.kind !== 'any') return 1;
  return condition.of.reduce((sum, part) => sum + countConditions(part), 1);
}

function duration(maxMicros: number) {
  return z
    .string(DURATION_HINT)
    .transform((given, context): number => {
      const micros = parseDuration(given);
      if (micros === null) context.addIssue(DURATION_HINT);
      else if (micros > maxMicros) context.addIssue(`must be at most ${formatDuration(maxMicros)}`);
      else return micros;
      return z.NEVER;
    })
    .default(0);
}

function text(charsMax: number) {
  return z
    .string()
    .min(1)
    .max(charsMax)
    .refine(isPrintable, 'must not have control characters')
    .refine((given) => given === given.trim(), 'must not begin or end with white space');
}

/** May be empty, and have several lines. */
function freeText(charsMax: number) {
  return z
    .string()
    .max(charsMax)
    .refine(
      (given) => isPrintable(given.replaceAll(/[\n\t]/g, ' ')),
      'must not have control characters',
    );
}

/** Neither control characters nor halves of surrogate pairs: PostgreSQL stores no U+0000. */
function isPrintable(given: string): boolean {
  return !/\p{Cc}|\p{Cs}/u.test(given);
}

function names(one: z.ZodType<string>) {
  return z
    .array(one)
    .min(1)
    .max(SCOPE_NAMES_MAX)
    .refine((all) => new Set(all).size === all.length, 'must not name one twice')
    .optional();
}

function pairs(value: z.ZodType<string>) {
  return z
    .record(label, value)
    .refine((all) => Object.keys(all).length <= PAIRS_MAX, `must be at most ${PAIRS_MAX}`)
    .default({});
}

function withoutUndefined<T extends object>(
  given: T,
): { [Key in keyof T]: Exclude<T[Key], undefined> } {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as {
    [Key in keyof T]: Exclude<T[Key], undefined>;
  };
}

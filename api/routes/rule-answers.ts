import { z } from 'zod';
import { SEVERITIES } from '../../rules/severity.ts';
import { timeAnswer } from '../schemas.ts';

/** Whether a rule is evaluated, and whether anybody is told. */
export const modeSchema = z.enum(['enabled', 'disabled', 'shadow']);
/** How bad an alert is. */
export const severitySchema = z.enum(SEVERITIES);

const condition = z
  .looseObject({})
  .describe('What must hold; docs/rules.md has every form: {"metric":"temp","op":">","value":80}.');
const duration = z.string().describe('250ms, 2s, 5m, 1h, 1d.');

/** What a rule says. */
const said = {
  name: z.string(),
  description: z.string(),
  severity: severitySchema,
  scope: z
    .object({
      devices: z.array(z.string()).optional(),
      tags: z.array(z.string()).optional(),
      types: z.array(z.string()).optional(),
    })
    .describe('A device must match every member that is there; {}: all devices.'),
  when: condition,
  levels: z
    .array(z.object({ severity: severitySchema, when: condition }))
    .describe('Worse severities, with conditions of their own; the worst that holds wins.'),
  for: duration.describe('How long the condition must hold before the alert fires.'),
  keepFiringFor: duration.describe('How long it must not hold before the alert is resolved.'),
  late: z.enum(['current-only', 're-evaluate', 'ignore']),
  allowedLateness: duration.describe('Readings are held back so long, to be taken in order.'),
  groupBy: z.string().nullable(),
  labels: z.record(z.string(), z.string()),
  annotations: z.record(z.string(), z.string()),
  suppressedBy: z.array(z.object({ rule: z.string(), device: z.string().nullable() })),
  noiseBudgetPerDay: z.number().nullable(),
  actions: z.array(z.looseObject({})).describe('Commands that it sends; docs/rules.md.'),
};

/** What a rule says in the order of these pages: the database keeps no order. */
export function inOrder(rule: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.keys(said).map((member) => [member, rule[member]]));
}

/** A rule. */
export const ruleAnswer = z.object({
  id: z.uuid(),
  version: z.number().int().describe('Rises with every change of what the rule says.'),
  ...said,
  mode: modeSchema,
  createdAt: timeAnswer,
  updatedAt: timeAnswer,
  suspendedAt: timeAnswer
    .nullable()
    .describe('Since when the program has stopped evaluating it, for the reason beside.'),
  suspendedReason: z.string().nullable(),
});

/** A rule that was saved. */
export const savedAnswer = ruleAnswer.extend({
  warnings: z.array(z.string()).describe('What may be a slip: a device that does not exist.'),
});

/** A rule that was checked. */
export const checkedAnswer = z.object({
  ...said,
  mode: modeSchema,
  warnings: z.array(z.string()),
});

/** A version. */
export const versionAnswer = z.object({
  version: z.number().int(),
  createdAt: timeAnswer,
  createdBy: z.string().describe('Id of the key that asked for it.'),
  rule: z.object(said),
});

const anything = z.unknown().optional();

/**
 * A rule as it is sent. What its members may be is not checked here: `parseRule` tells of all faults of a
 * rule at once, with RULE_INVALID.
 */
export const ruleBody = z
  .looseObject({
    name: anything.describe('1 to 100 characters; the only one of this name.'),
    description: anything.describe('Text; default "".'),
    mode: anything.describe('enabled (default), disabled, or shadow.'),
    severity: anything.describe(SEVERITIES.join(', ')),
    scope: anything.describe('{"devices":[…],"tags":[…],"types":[…]}; default {}: all devices.'),
    when: anything.describe('The condition: {"metric":"temp","op":">","value":80,"clear":75}.'),
    levels: anything.describe('[{"severity":"critical","when":…}]; default [].'),
    for: anything.describe('Duration; default "0s".'),
    keepFiringFor: anything.describe('Duration; default "0s".'),
    late: anything.describe('current-only (default), re-evaluate, or ignore.'),
    allowedLateness: anything.describe('Duration; default "0s".'),
    groupBy: anything.describe('A text metric, or a member of the event; default null.'),
    labels: anything.describe('{"team":"heating"}; default {}.'),
    annotations: anything.describe('{"summary":"{{device}} is at {{value}} °C"}; default {}.'),
    suppressedBy: anything.describe('[{"rule":"gateway down","device":"gw-1"}]; default [].'),
    noiseBudgetPerDay: anything.describe('Notifications; default null.'),
    actions: anything.describe(
      '[{"on":"firing","command":"fan","args":{"on":true},"maxPerHour":6,"minGap":"1m","fresh":"5m"}]; default [].',
    ),
  })
  .meta({
    examples: [
      {
        name: 'boiler too hot',
        severity: 'critical',
        scope: { devices: ['first'] },
        when: { metric: 'temp', op: '>', value: 80, clear: 75 },
        for: '2s',
        annotations: { summary: '{{device}} is at {{value}} °C' },
      },
    ],
  });

import { z } from 'zod';
import { COMMAND_NAME, SYSTEM_COMMAND_PREFIX } from '../../firmware-protocol/command.ts';
import { deviceNameSchema } from '../../firmware-protocol/contract.ts';
import { DURATION_HINT, formatDuration, parseDuration } from '../../duration.ts';
import { strictObject } from '../rule-faults.ts';

/** Most actions of one rule. */
export const RULE_ACTIONS_MAX = 4;
const DAY_MICROS = 86_400_000_000;
const ARGS_CHARS_MAX = 1000;

/** A command that a rule sends when its alert takes a step, and what keeps it from doing so. */
export interface RuleAction {
  /** At which step: the alert begins to fire, or is resolved. */
  readonly on: 'firing' | 'resolved';
  readonly command: string;
  readonly args: Readonly<Record<string, unknown>>;
  /** Slug; null: the device of the alert. */
  readonly device: string | null;
  /** How long the command may wait for its device. */
  readonly ttlMicros: number;
  /** A newer command with the same word takes the place of one that waits; null: none does. */
  readonly replace: string | null;
  /** Commands of this action to one device in an hour. */
  readonly maxPerHour: number;
  /** Least time between two of them. */
  readonly minGapMicros: number;
  /** The device must have said something within this time; null: it need not. */
  readonly freshMicros: number | null;
  /** What the configuration that the device reported must say when the command is sent; null: anything. */
  readonly ifReported: Readonly<Record<string, unknown>> | null;
  /** Only records what it would have done. */
  readonly simulate: boolean;
}

/** An action as the API has it. */
export const ruleActionSchema = strictObject({
  on: z.enum(['firing', 'resolved']).default('firing'),
  command: z
    .string()
    .regex(COMMAND_NAME, 'must be 1 to 32 of a-z, 0-9 and _ . -, a letter first')
    .refine(
      (name) => !name.startsWith(SYSTEM_COMMAND_PREFIX),
      'must not be a command of the system',
    ),
  args: smallObject().default({}),
  device: deviceNameSchema.nullable().default(null),
  // What is shorter than a second no command can be.
  ttl: duration(1_000_000, 7 * DAY_MICROS).default(600_000_000),
  replace: z
    .string()
    .regex(/^[A-Za-z0-9_.:-]{1,64}$/, 'must be 1 to 64 letters, digits and _ . : -')
    .nullable()
    .default(null),
  maxPerHour: z.number().int().min(1).max(3600).default(6),
  minGap: duration(0, DAY_MICROS).default(60_000_000),
  fresh: duration(1_000_000, 7 * DAY_MICROS)
    .nullable()
    .default(300_000_000),
  ifReported: smallObject().nullable().default(null),
  simulate: z.boolean().default(false),
}).transform(({ ttl, minGap, fresh, ...rest }): RuleAction => ({
  ...rest,
  ttlMicros: ttl,
  minGapMicros: minGap,
  freshMicros: fresh,
}));

/** The JSON of an action as the API has it, with every member. */
export function formatAction(action: RuleAction): Record<string, unknown> {
  const { ttlMicros, minGapMicros, freshMicros, ...rest } = action;
  return {
    ...rest,
    ttl: formatDuration(ttlMicros),
    minGap: formatDuration(minGapMicros),
    fresh: freshMicros === null ? null : formatDuration(freshMicros),
  };
}

function smallObject() {
  return z
    .record(z.string(), z.json())
    .refine(
      (value) => JSON.stringify(value).length <= ARGS_CHARS_MAX,
      `must not be longer than ${ARGS_CHARS_MAX} characters`,
    );
}

function duration(minMicros: number, maxMicros: number) {
  return z.string(DURATION_HINT).transform((given, context): number => {
    const micros = parseDuration(given);
    if (micros === null) context.addIssue(DURATION_HINT);
    else if (micros < minMicros) context.addIssue(`must be at least ${formatDuration(minMicros)}`);
    else if (micros > maxMicros) context.addIssue(`must be at most ${formatDuration(maxMicros)}`);
    else return micros;
    return z.NEVER;
  });
}

import { z } from 'zod';
import { CONDITION_DEPTH_MAX, CONDITIONS_MAX } from './condition-bounds.ts';
import {
  celSchema,
  compareFleetSchema,
  compareMetricSchema,
  compareSchema,
  connectionSchema,
  eventSchema,
  noDataSchema,
  stuckSchema,
  windowSchema,
} from './condition-members.ts';
import type { Condition } from './condition.ts';
import { rawIssue } from './raw-issue.ts';
import { scheduleSchema } from './schedule-schema.ts';

export { formatCondition } from './condition-format.ts';

/** By the member that tells it; of conditions on metrics the first that is there. */
const BY_MEMBER = {
  event: eventSchema,
  connection: connectionSchema,
  schedule: scheduleSchema,
  noData: noDataSchema,
  cel: celSchema,
} as const;
const OF_METRIC = {
  stuck: stuckSchema,
  window: windowSchema,
  samples: windowSchema,
  fn: windowSchema,
  other: compareMetricSchema,
  fleet: compareFleetSchema,
} as const;
const COMBINATIONS = ['all', 'any', 'not'] as const;
const OBJECT_HINT =
  'must be a condition, an object such as {"metric":"temp","op":">","value":80} or {"cel":"temp > 80"}';
const HINT = `must have one of ${[...COMBINATIONS, 'metric', ...Object.keys(BY_MEMBER)].join(', ')}`;

/**
 * A condition as the API has it, a JSON value: what comes out has its defaults filled in and durations in
 * microseconds. Strict; every fault is reported with its path. At most {@link CONDITION_DEPTH_MAX} deep and
 * {@link CONDITIONS_MAX} in all.
 */
export const conditionSchema: z.ZodType<Condition, unknown> = z
  .unknown()
  .describe('A condition, as docs/rules.md has it: {"metric":"temp","op":">","value":80}')
  .transform((json, context): Condition => {
    const reader = new Reader(context.issues as z.core.$ZodRawIssue[]);
    return reader.read(json, [], 1) ?? z.NEVER;
  });

class Reader {
  readonly #issues: z.core.$ZodRawIssue[];
  #count = 0;

  constructor(issues: z.core.$ZodRawIssue[]) {
    this.#issues = issues;
  }

  /** Null when there is a fault in it. */
  read(json: unknown, path: readonly PropertyKey[], depth: number): Condition | null {
    this.#count += 1;
    if (this.#count > CONDITIONS_MAX) {
      // Once: the rest is not looked at.
      if (this.#count > CONDITIONS_MAX + 1) return null;
      return this.#fault(json, path, `there are more than ${CONDITIONS_MAX} conditions`);
    }
    if (depth > CONDITION_DEPTH_MAX) {
      return this.#fault(json, path, `must not be nested deeper than ${CONDITION_DEPTH_MAX}`);
    }
    if (typeof json !== 'object' || json === null || Array.isArray(json)) {
      return this.#fault(json, path, OBJECT_HINT);
    }
    const combination = COMBINATIONS.find((member) => Object.hasOwn(json, member));
    if (combination !== undefined) return this.#combination(combination, json, path, depth);
    return this.#leaf(json, path);
  }

  #combination(
    kind: (typeof COMBINATIONS)[number],
    json: object,
    path: readonly PropertyKey[],
    depth: number,
  ): Condition | null {
    const keys = Object.keys(json).filter((key) => key !== kind);
    if (keys.length > 0) {
      const code = 'unrecognized_keys';
      const message = `must have nothing beside ${kind}`;
      const issue: z.core.$ZodRawIssue<z.core.$ZodIssueUnrecognizedKeys> = {
        code,
        keys,
        path: [...path],
        input: json as Record<string, unknown>,
        message,
      };
      this.#issues.push(issue);
    }
    const parts: unknown = (json as Record<string, unknown>)[kind];
    const below = [...path, kind];
    if (kind === 'not') {
      const of = this.read(parts, below, depth + 1);
      return of === null ? null : { kind, of };
    }
    if (!Array.isArray(parts) || parts.length === 0) {
      return this.#fault(parts, below, 'must be a list of at least one condition');
    }
    const of = parts
      .slice(0, CONDITIONS_MAX + 1)
      .map((part, index) => this.read(part, [...below, index], depth + 1));
    const whole = of.filter((part) => part !== null);
    return whole.length < of.length ? null : { kind, of: whole };
  }

  #leaf(json: object, path: readonly PropertyKey[]): Condition | null {
    const schema = schemaFor(json);
    if (schema === null) return this.#fault(json, path, HINT);
    const { success, data, error } = schema.safeParse(json);
    if (success) return data;
    for (const issue of error.issues) {
      this.#issues.push(rawIssue(issue, path, json));
    }
    return null;
  }

  #fault(input: unknown, path: readonly PropertyKey[], message: string): null {
    this.#issues.push({ code: 'custom', path: [...path], input, message });
    return null;
  }
}

function schemaFor(json: object): z.ZodType<Condition> | null {
  for (const [member, schema] of Object.entries(BY_MEMBER)) {
    if (Object.hasOwn(json, member)) return schema;
  }
  if (!Object.hasOwn(json, 'metric')) return null;
  for (const [member, schema] of Object.entries(OF_METRIC)) {
    if (Object.hasOwn(json, member)) return schema;
  }
  return compareSchema;
}

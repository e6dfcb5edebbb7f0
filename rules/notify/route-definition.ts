import { z } from 'zod';
import { DURATION_HINT, parseDuration } from '../../duration.ts';
import { labelName, matchersSchema } from './matchers.ts';
import { quietHoursSchema } from './quiet-hours.ts';

const GROUP_LABELS_MAX = 8;
const RECEIVERS_MAX = 20;

function duration(minMs: number, standard: string) {
  return z
    .string(DURATION_HINT)
    .refine((text) => parseDuration(text) !== null, DURATION_HINT)
    .refine((text) => (parseDuration(text) ?? 0) >= minMs * 1000, `must be at least ${minMs} ms`)
    .default(standard);
}

/**
 * A route as the API has it. `groupWait` is how long the first message of a group waits for more alerts,
 * `groupInterval` the least time between two messages of a group, `repeatInterval` after which time alerts
 * that are firing are told again.
 */
export const routeSchema = z.strictObject({
  name: z
    .string()
    .trim()
    .min(1)
    .max(100)
    .refine((text) => !/\p{Cc}|\p{Cs}/u.test(text), 'must not have control characters'),
  matchers: matchersSchema.default([]),
  receivers: z
    .array(z.uuid('must be an id of GET /api/v1/receivers').toLowerCase())
    .min(1)
    .max(RECEIVERS_MAX)
    .refine((all) => new Set(all).size === all.length, 'must not name a receiver twice')
    .describe('Ids of the receivers that are told.'),
  groupBy: z
    .array(labelName)
    .max(GROUP_LABELS_MAX)
    .default([])
    .describe(
      'Labels; alerts with equal values share a message. Empty: all alerts of the route do.',
    ),
  groupWait: duration(0, '1s'),
  groupInterval: duration(1000, '1m'),
  repeatInterval: duration(60_000, '4h'),
  continue: z
    .boolean()
    .default(false)
    .describe('Whether routes behind this one are asked too when it matches.'),
  quietHours: quietHoursSchema.nullable().default(null),
});

/** What a route says, with defaults filled in. */
export type RouteDefinition = z.output<typeof routeSchema>;

/** A route as it is stored. */
export interface Route {
  readonly routeId: string;
  readonly position: number;
  readonly definition: RouteDefinition;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** Milliseconds of a duration of a route. */
export function msOf(text: string): number {
  return (parseDuration(text) ?? 0) / 1000;
}

import { z } from 'zod';
import { RuleNotFoundError } from '../../rule-errors.ts';
import type { ActionRun, ActionRuns, RunPlace } from '../../rules/action/action-runs.ts';
import type { RuleStore } from '../../rules/rule-store.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import { cursorQuery, limitQuery, pageOf, timeAnswer, uuidOf } from '../schemas.ts';

/** What the routes of actions need. */
export interface RuleActionRoutesDeps {
  readonly rules: RuleStore;
  readonly actionRuns: ActionRuns;
  readonly pageRowsMax: number;
}

const runAnswer = z.object({
  alertId: z.uuid(),
  sequence: z.number().int().describe('Step of the alert.'),
  action: z.number().int().describe('Place of the action in the rule, from 0.'),
  device: z.string().describe('The device that the command was for.'),
  at: timeAnswer,
  outcome: z.enum(['sent', 'simulated', 'blocked']),
  detail: z.string().describe('What was sent, or why nothing was.'),
  commandId: z.uuid().nullable(),
});
const place = z.tuple([z.string(), z.uuid(), z.int().min(0), z.int().min(0)]);

/** The routes that show what actions of rules did. */
export function ruleActionRoutes({
  rules,
  actionRuns,
  pageRowsMax,
}: RuleActionRoutesDeps): Route[] {
  return [
    defineRoute({
      method: 'GET',
      path: '/api/v1/rules/{ruleId}/action-runs',
      role: 'admin',
      tag: 'rules',
      summary: 'What the actions of a rule did, and why they did nothing, newest first',
      params: z.strictObject({ ruleId: z.string().describe('Id of the rule.') }),
      query: z.strictObject({ limit: limitQuery(100, pageRowsMax), cursor: cursorQuery }),
      answers: { 200: { description: 'A page of runs.', schema: pageOf(runAnswer) } },
      async handle({ principal: { organizationId }, params, query: { limit, cursor } }) {
        const publicId = uuidOf(params.ruleId, RuleNotFoundError);
        await rules.get(organizationId, publicId);
        const filters = ['action-runs', organizationId, publicId];
        const before = cursor === undefined ? null : placeOf(readCursor(filters, place, cursor));
        const query = { organizationId, publicId, limit, before };
        const { rows, hasMore } = await actionRuns.list(query);
        const last = rows.at(-1);
        const next = hasMore && last !== undefined ? writeCursor(filters, placeIn(last)) : null;
        return { status: 200, body: { data: rows.map(bodyOf), next } };
      },
    }),
  ];
}

function placeOf([at, alertId, sequence, action]: z.output<typeof place>): RunPlace {
  return { at, alertId, sequence, action };
}

function placeIn({ occurredAt, alertId, sequence, action }: ActionRun): z.input<typeof place> {
  return [occurredAt.toISOString(), alertId, sequence, action];
}

function bodyOf({ occurredAt, ...run }: ActionRun): z.input<typeof runAnswer> {
  return { ...run, at: occurredAt.toISOString() };
}

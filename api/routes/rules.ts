import { z } from 'zod';
import { RuleNotFoundError } from '../../rule-errors.ts';
import type { StoredRule, RuleVersion } from '../../rules/rule-row.ts';
import type { RuleStore, SavedRule } from '../../rules/rule-store.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import { cursorQuery, limitQuery, pageOf, uuidOf } from '../schemas.ts';
import { authorOf } from './devices.ts';
import {
  checkedAnswer,
  inOrder,
  modeSchema,
  ruleAnswer,
  ruleBody,
  savedAnswer,
  versionAnswer,
} from './rule-answers.ts';

/** What the routes of rules need. */
export interface RuleRoutesDeps {
  readonly rules: RuleStore;
  readonly pageRowsMax: number;
}

/** Rules may be long: at most so many on a page. */
const PAGE_RULES_MAX = 200;

const ruleParams = z.strictObject({ ruleId: z.string().describe('Id of the rule.') });
const versionParams = ruleParams.extend({
  version: z.string().describe('Number of the version.'),
});
const namePlace = z.tuple([z.string()]);
const versionPlace = z.tuple([z.int().min(1).max(2_147_483_647)]);

/** The routes of rules. */
export function ruleRoutes(deps: RuleRoutesDeps): Route[] {
  return [
    listRoute(deps),
    createRoute(deps),
    checkRoute(deps),
    getRoute(deps),
    updateRoute(deps),
    deleteRoute(deps),
    modeRoute(deps, 'enable', 'enabled', 'Evaluate a rule, and tell of its alerts'),
    modeRoute(deps, 'disable', 'disabled', 'Evaluate a rule no more; its open alerts end'),
    modeRoute(deps, 'shadow', 'shadow', 'Evaluate a rule and record its alerts, and tell nobody'),
    versionsRoute(deps),
    versionRoute(deps),
  ];
}

function listRoute({ rules, pageRowsMax }: RuleRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/rules',
    role: 'admin',
    tag: 'rules',
    summary: 'List rules, in the order of their names',
    query: z.strictObject({
      mode: modeSchema.optional().describe('Only of this mode.'),
      limit: limitQuery(100, Math.min(PAGE_RULES_MAX, pageRowsMax)),
      cursor: cursorQuery,
    }),
    answers: { 200: { description: 'A page of rules.', schema: pageOf(ruleAnswer) } },
    async handle({ principal: { organizationId }, query: { mode = null, limit, cursor } }) {
      const filters = ['rules', organizationId, mode];
      const after = cursor === undefined ? null : readCursor(filters, namePlace, cursor)[0];
      const { rows, hasMore } = await rules.list({ organizationId, mode, limit, after });
      const next = hasMore ? writeCursor(filters, [rows.at(-1)?.name]) : null;
      return { status: 200, body: { data: rows.map(bodyOf), next } };
    },
  });
}

function createRoute({ rules }: RuleRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/rules',
    role: 'admin',
    tag: 'rules',
    summary: 'Create a rule',
    description: `docs/rules.md tells what a rule may say. What is wrong is answered with RULE_INVALID and
every fault at once; what may be a slip, as a device that does not exist, stands in "warnings".`,
    body: ruleBody,
    answers: { 201: { description: 'The rule.', schema: savedAnswer } },
    async handle({ principal, body }) {
      const saved = await rules.create(authorOf(principal), body);
      const location = `/api/v1/rules/${saved.rule.publicId}`;
      return { status: 201, body: savedBody(saved), headers: { location } };
    },
  });
}

function checkRoute({ rules }: RuleRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/rules/check',
    role: 'admin',
    tag: 'rules',
    summary: 'Check a rule without saving it',
    description: 'Answers as if it were created, with all defaults filled in.',
    body: ruleBody,
    answers: {
      200: { description: 'The rule as it would be saved.', schema: checkedAnswer },
    },
    async handle({ principal: { organizationId }, body }) {
      const { stored, definition, warnings } = await rules.check(organizationId, body);
      return { status: 200, body: { ...inOrder(stored), mode: definition.mode, warnings } };
    },
  });
}

function getRoute({ rules }: RuleRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/rules/{ruleId}',
    role: 'admin',
    tag: 'rules',
    summary: 'Get a rule',
    params: ruleParams,
    answers: { 200: { description: 'The rule.', schema: ruleAnswer } },
    async handle({ principal: { organizationId }, params }) {
      const rule = await rules.get(organizationId, uuidOf(params.ruleId, RuleNotFoundError));
      return { status: 200, body: bodyOf(rule) };
    },
  });
}

function updateRoute({ rules }: RuleRoutesDeps): Route {
  return defineRoute({
    method: 'PATCH',
    path: '/api/v1/rules/{ruleId}',
    role: 'admin',
    tag: 'rules',
    summary: 'Change a rule',
    description: `Members that are given take the place of those that were there as a whole; what is left out
stays, and null gives a member its default. What the rule says becomes a new version, and old ones are kept;
"mode" is not part of a version. With "version" the change is refused with RULE_CHANGED unless the rule is at
that version. A suspended rule is evaluated again.`,
    params: ruleParams,
    body: ruleBody
      .extend({
        version: z.int().min(1).optional().describe('Version that the change was made for.'),
      })
      .refine((change) => Object.keys(change).some((name) => name !== 'version'), {
        message: 'must change something',
      }),
    answers: { 200: { description: 'The rule as it is now.', schema: savedAnswer } },
    async handle({ principal, params, body: { version = null, ...change } }) {
      const edit = { change, version };
      const saved = await rules.update(
        authorOf(principal),
        uuidOf(params.ruleId, RuleNotFoundError),
        edit,
      );
      return { status: 200, body: savedBody(saved) };
    },
  });
}

function deleteRoute({ rules }: RuleRoutesDeps): Route {
  return defineRoute({
    method: 'DELETE',
    path: '/api/v1/rules/{ruleId}',
    role: 'admin',
    tag: 'rules',
    summary: 'Delete a rule; its alerts end and their history stays',
    params: ruleParams,
    answers: { 204: { description: 'Gone.', schema: null } },
    async handle({ principal, params }) {
      await rules.remove(authorOf(principal), uuidOf(params.ruleId, RuleNotFoundError));
      return { status: 204 };
    },
  });
}

function modeRoute(
  { rules }: RuleRoutesDeps,
  verb: 'enable' | 'disable' | 'shadow',
  mode: 'enabled' | 'disabled' | 'shadow',
  summary: string,
): Route {
  return defineRoute({
    method: 'POST',
    path: `/api/v1/rules/{ruleId}/${verb}`,
    role: 'admin',
    tag: 'rules',
    summary,
    description: 'Makes no new version. A suspended rule is no longer suspended.',
    params: ruleParams,
    answers: { 200: { description: 'The rule as it is now.', schema: ruleAnswer } },
    async handle({ principal, params }) {
      const rule = await rules.setMode(
        authorOf(principal),
        uuidOf(params.ruleId, RuleNotFoundError),
        mode,
      );
      return { status: 200, body: bodyOf(rule) };
    },
  });
}

function versionsRoute({ rules, pageRowsMax }: RuleRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/rules/{ruleId}/versions',
    role: 'admin',
    tag: 'rules',
    summary: 'What a rule has said, newest version first',
    params: ruleParams,
    query: z.strictObject({
      limit: limitQuery(100, Math.min(PAGE_RULES_MAX, pageRowsMax)),
      cursor: cursorQuery,
    }),
    answers: { 200: { description: 'A page of versions.', schema: pageOf(versionAnswer) } },
    async handle({ principal: { organizationId }, params, query: { limit, cursor } }) {
      const publicId = uuidOf(params.ruleId, RuleNotFoundError);
      const filters = ['rule versions', organizationId, publicId];
      const before = cursor === undefined ? null : readCursor(filters, versionPlace, cursor)[0];
      const page = await rules.versions({ organizationId, publicId, limit, before });
      const next = page.hasMore ? writeCursor(filters, [page.rows.at(-1)?.version]) : null;
      return { status: 200, body: { data: page.rows.map(versionBody), next } };
    },
  });
}

function versionRoute({ rules }: RuleRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/rules/{ruleId}/versions/{version}',
    role: 'admin',
    tag: 'rules',
    summary: 'What a rule said in one version',
    params: versionParams,
    answers: { 200: { description: 'The version.', schema: versionAnswer } },
    async handle({ principal: { organizationId }, params: { ruleId, version } }) {
      const found = await rules.version(
        organizationId,
        uuidOf(ruleId, RuleNotFoundError),
        numberOf(version),
      );
      return { status: 200, body: versionBody(found) };
    },
  });
}

/** A text that is no number of a version is the number of none. */
function numberOf(text: string): number {
  return /^\d{1,9}$/.test(text) ? Number(text) : 0;
}

function bodyOf(rule: StoredRule): z.input<typeof ruleAnswer> {
  return {
    id: rule.publicId,
    version: rule.version,
    ...inOrder(rule.definition),
    name: rule.name,
    mode: rule.mode,
    createdAt: rule.createdAt.toISOString(),
    updatedAt: rule.updatedAt.toISOString(),
    suspendedAt: rule.suspendedAt?.toISOString() ?? null,
    suspendedReason: rule.suspendedReason,
  } as z.input<typeof ruleAnswer>;
}

function savedBody({ rule, warnings }: SavedRule): object {
  return { ...bodyOf(rule), warnings: [...warnings] };
}

function versionBody({ version, definition, createdAt, createdBy }: RuleVersion): object {
  return { version, createdAt: createdAt.toISOString(), createdBy, rule: inOrder(definition) };
}

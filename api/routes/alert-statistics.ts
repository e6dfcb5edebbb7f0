import { z } from 'zod';
import { RuleNotFoundError } from '../../rule-errors.ts';
import { RequestInvalidError } from '../../errors.ts';
import type { Alerts } from '../../rules/alert/alerts.ts';
import { defineRoute, type Route } from '../route.ts';
import { timeText, uuidOf } from '../schemas.ts';
import {
  figuresBody,
  organizationStatisticsAnswer,
  overallBody,
  ruleStatisticsAnswer,
} from './alert-answers.ts';

const DAY_MICROS = 86_400_000_000;
const WINDOW_MICROS = 30 * DAY_MICROS;
const WINDOW_MICROS_MAX = 366 * DAY_MICROS;

const windowQuery = z.strictObject({
  from: timeText.optional().describe('First time at which alerts began; 30 days before "to".'),
  to: timeText.optional().describe('Last one, exclusive; now.'),
});
const DESCRIPTION = `Of alerts that began between "from" and "to", at most 366 days, and have fired. Those
found in readings that came late are not counted.`;

/** The routes of statistics of alerts. */
export function alertStatisticsRoutes(alerts: Alerts, now: () => number): Route[] {
  return [
    defineRoute({
      method: 'GET',
      path: '/api/v1/rules/{ruleId}/statistics',
      role: 'admin',
      tag: 'rules',
      summary: 'How often a rule fires, how soon people take notice, and how often it is right',
      description: DESCRIPTION,
      params: z.strictObject({ ruleId: z.string().describe('Id of the rule.') }),
      query: windowQuery,
      answers: { 200: { description: 'The figures.', schema: ruleStatisticsAnswer } },
      async handle({ principal: { organizationId }, params, query }) {
        const window = windowOf(query, now);
        const publicId = uuidOf(params.ruleId, RuleNotFoundError);
        const found = await alerts.ruleStatistics({ organizationId, publicId, ...window });
        const versions = found.versions.map(({ version, ...figures }) => ({
          version,
          ...figuresBody(figures),
        }));
        return { status: 200, body: { ...overallBody(found, window), versions } };
      },
    }),
    defineRoute({
      method: 'GET',
      path: '/api/v1/statistics/alerts',
      role: 'admin',
      tag: 'alerts',
      summary: 'How many alerts there are, of which rules, and how soon people take notice',
      description: DESCRIPTION,
      query: windowQuery,
      answers: { 200: { description: 'The figures.', schema: organizationStatisticsAnswer } },
      async handle({ principal: { organizationId }, query }) {
        const window = windowOf(query, now);
        const found = await alerts.organizationStatistics({ organizationId, ...window });
        const severities = found.severities.map(({ severity, ...figures }) => ({
          severity,
          ...figuresBody(figures),
        }));
        const rules = found.rules.map(({ publicId, name, ...figures }) => ({
          id: publicId,
          rule: name,
          ...figuresBody(figures),
        }));
        const { open } = found;
        return { status: 200, body: { ...overallBody(found, window), open, severities, rules } };
      },
    }),
  ];
}

function windowOf(
  { from, to }: z.output<typeof windowQuery>,
  now: () => number,
): { readonly fromMicros: number; readonly toMicros: number } {
  const toMicros = to ?? Math.floor(now()) * 1000;
  const fromMicros = from ?? toMicros - WINDOW_MICROS;
  const isHeld = fromMicros < toMicros && toMicros - fromMicros <= WINDOW_MICROS_MAX;
  if (isHeld) return { fromMicros, toMicros };
  throw new RequestInvalidError(['query.from: must be before "to", and not 366 days before it']);
}

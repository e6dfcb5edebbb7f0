import { z } from 'zod';
import { AlertNotFoundError, RuleNotFoundError } from '../../rule-errors.ts';
import type { Backtests } from '../../rules/backtest/backtests.ts';
import type { Operand } from '../../rules/compiled-rule.ts';
import type { Explanations } from '../../rules/explain/explanations.ts';
import { readStored } from '../../rules/rule-check.ts';
import type { RuleStore } from '../../rules/rule-store.ts';
import { defineRoute, type Route } from '../route.ts';
import { labelText, timeAnswer, timeText, uuidOf } from '../schemas.ts';
import { formatMicros } from '../time-text.ts';
import { severitySchema } from './rule-answers.ts';

/** What the routes that explain need. */
export interface ExplainRoutesDeps {
  readonly explanations: Explanations;
  readonly rules: RuleStore;
  readonly backtests: Pick<Backtests, 'compile'>;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

const operand = z.object({
  name: z.string(),
  value: z.union([z.number(), z.string(), z.boolean(), z.null()]),
  time: timeAnswer.nullable().describe('Of the sample.'),
  against: z.string().nullable().describe('What it was held against.'),
  holds: z.boolean(),
});
const phase = z.enum(['inactive', 'pending', 'firing']);
const transition = z.object({
  sequence: z.number().int(),
  at: timeAnswer.describe('Event time.'),
  from: phase,
  to: phase,
  severity: severitySchema,
  reason: z.string(),
  ruleVersion: z.number().int(),
  historical: z.boolean().describe('Found later, in readings that came late.'),
  words: z.string().describe('Why, in words and numbers.'),
  operands: z.array(operand),
});
const explanation = z.object({
  alertId: z.uuid(),
  rule: z.string(),
  device: z.string(),
  summary: z.string(),
  transitions: z.array(transition),
  told: z.array(z.string()).describe('Who was told, and who was not and why.'),
});
const whyNotAnswer = z.object({
  rule: z.string(),
  version: z.number().int(),
  device: z.string(),
  at: timeAnswer,
  state: phase,
  reasons: z.array(z.string()),
  operands: z.array(operand).describe('What its condition looked at last.'),
  readings: z.number().int().describe('Readings that were evaluated again for this answer.'),
});

/** The routes that say why an alert did what it did, and why a rule did not fire. */
export function explainRoutes(deps: ExplainRoutesDeps): Route[] {
  return [explainRoute(deps), whyNotRoute(deps)];
}

function explainRoute({ explanations }: ExplainRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/alerts/{alertId}/explain',
    role: 'admin',
    tag: 'alerts',
    summary: 'Why each step of an alert was taken, in words and numbers',
    params: z.strictObject({ alertId: z.string().describe('Id of the alert.') }),
    answers: { 200: { description: 'The explanation.', schema: explanation } },
    async handle({ principal: { organizationId }, params }) {
      const found = await explanations.explain(
        organizationId,
        uuidOf(params.alertId, AlertNotFoundError),
      );
      const { alert, summary, transitions, told } = found;
      return {
        status: 200,
        body: {
          alertId: alert.alertId,
          rule: alert.rule,
          device: alert.device,
          summary,
          transitions: transitions.map(
            ({ atMicros, isHistorical, operands, recordedMicros: _recorded, ...step }) => ({
              ...step,
              at: formatMicros(atMicros),
              historical: isHistorical,
              operands: operands.map(operandBody),
            }),
          ),
          told,
        },
      };
    },
  });
}

function whyNotRoute({ explanations, rules, backtests, now }: ExplainRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/rules/{ruleId}/why-not',
    role: 'admin',
    tag: 'rules',
    summary: 'What kept a rule from firing for a device',
    description:
      'Evaluates the rule once more over the stored history of the device, up to that time.',
    params: z.strictObject({ ruleId: z.string().describe('Id of the rule.') }),
    query: z.strictObject({
      device: labelText(48),
      at: timeText.optional().describe('Left out: now.'),
    }),
    answers: { 200: { description: 'The reasons.', schema: whyNotAnswer } },
    async handle({ principal: { organizationId }, params, query: { device, at } }) {
      const publicId = uuidOf(params.ruleId, RuleNotFoundError);
      const stored = await rules.get(organizationId, publicId);
      const { ruleId, version } = stored;
      const definition = readStored(stored.definition, 'enabled');
      const rule = backtests.compile(organizationId, definition, { ruleId, publicId, version });
      const atMicros = Math.min(at ?? Infinity, now() * 1000);
      const asked = { organizationId, stored, rule, device, atMicros };
      const { operands, ...answer } = await explanations.whyNot(asked);
      return {
        status: 200,
        body: {
          rule: stored.name,
          version,
          device,
          at: formatMicros(atMicros),
          ...answer,
          operands: operands.map(operandBody),
        },
      };
    },
  });
}

function operandBody({ timeMicros, ...rest }: Operand): object {
  return { ...rest, time: timeMicros === null ? null : formatMicros(timeMicros) };
}

import { z } from 'zod';
import { RuleNotFoundError } from '../../rule-errors.ts';
import type { Logger } from '../../log.ts';
import type { BacktestFigures, BacktestResult } from '../../rules/backtest/backtest-result.ts';
import type { Backtests } from '../../rules/backtest/backtests.ts';
import { JSON_LINES_TYPE, jsonLines } from '../json-lines.ts';
import { defineRoute, type Route } from '../route.ts';
import { timeAnswer, timeText, uuidOf } from '../schemas.ts';
import { formatMicros } from '../time-text.ts';
import { severitySchema } from './rule-answers.ts';

const WEEK_MICROS = 7 * 86_400_000_000;

const body = z
  .strictObject({
    rule: z.looseObject({}).optional().describe('A draft, as POST /api/v1/rules takes a rule.'),
    ruleId: z
      .string()
      .max(64)
      .optional()
      .describe('Id of a stored rule; with a draft the one to compare it with.'),
    version: z.int().min(1).optional().describe('Of the stored rule; left out: the one in force.'),
    from: timeText.optional().describe('Left out: a week before "to".'),
    to: timeText.optional().describe('Exclusive. Left out: now.'),
  })
  .refine(({ rule, ruleId }) => rule !== undefined || ruleId !== undefined, {
    message: 'give "rule", "ruleId" or both',
  })
  .refine(({ rule, version }) => rule === undefined || version === undefined, {
    message: 'a draft has no "version"',
  });

const figures = z.object({
  version: z.number().int().nullable().describe('Null: the draft.'),
  transitions: z.number().int(),
  fired: z.number().int(),
  resolved: z.number().int(),
  minutesInAlarm: z.number(),
  notifications: z.number().int().describe('Fired, got worse or better, resolved: told once each.'),
  notificationsPerDay: z.number(),
  notificationsOfWorstDay: z.number().int(),
});
const alert = z.object({
  device: z.string(),
  groupKey: z.string(),
  severity: severitySchema,
  activeAt: timeAnswer,
  firedAt: timeAnswer,
  resolvedAt: timeAnswer.nullable(),
});
const line = z.union([
  z.object({
    progress: z.object({
      devices: z.number().int(),
      devicesDone: z.number().int(),
      readings: z.number().int(),
      share: z.number().describe('From 0 to 1.'),
    }),
  }),
  z.object({
    result: z.object({
      devices: z.number().int(),
      readings: z.number().int(),
      durationMs: z.number(),
      asked: figures,
      alerts: z.array(alert).describe('The first 1 000.'),
      comparison: z
        .object({
          inForce: figures,
          both: z.number().int(),
          onlyAsked: z.number().int(),
          onlyInForce: z.number().int(),
          examplesOfAsked: z.array(alert),
          examplesOfInForce: z.array(alert),
        })
        .nullable(),
    }),
  }),
  z.object({ error: z.looseObject({}) }),
]);

/** What the route of backtests needs. */
export interface BacktestRoutesDeps {
  readonly backtests: Backtests;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly log: Logger;
}

/** The route of backtests. */
export function backtestRoutes({ backtests, now, log }: BacktestRoutesDeps): Route[] {
  return [
    defineRoute({
      method: 'POST',
      path: '/api/v1/rules/backtest',
      role: 'admin',
      tag: 'rules',
      summary: 'What a rule would have done',
      description: `Runs a draft, or a version of a rule, over stored history with the code that evaluates
live. The answer comes line by line (NDJSON): its progress, and at the end the result, or an error.
Closing the connection ends it. Nothing is recorded, and nobody is told.`,
      body,
      answers: {
        200: {
          description: 'A JSON value a line.',
          schema: line,
          contentType: JSON_LINES_TYPE,
        },
      },
      async handle({ principal: { organizationId }, body: asked }) {
        const toMicros = asked.to ?? now() * 1000;
        const run = await backtests.prepare({
          organizationId,
          draft: asked.rule ?? null,
          publicId: asked.ruleId === undefined ? null : uuidOf(asked.ruleId, RuleNotFoundError),
          version: asked.version ?? null,
          fromMicros: asked.from ?? toMicros - WEEK_MICROS,
          toMicros,
        });
        const lines = jsonLines(async (watch) => resultBody(await run(watch)), log);
        return { status: 200, headers: { 'content-type': JSON_LINES_TYPE }, body: lines };
      },
    }),
  ];
}

function resultBody({ asked, alerts, comparison, ...rest }: BacktestResult): object {
  return {
    ...rest,
    asked: figuresBody(asked),
    alerts: alerts.map(alertBody),
    comparison:
      comparison === null
        ? null
        : {
            ...comparison,
            inForce: figuresBody(comparison.inForce),
            examplesOfAsked: comparison.examplesOfAsked.map(alertBody),
            examplesOfInForce: comparison.examplesOfInForce.map(alertBody),
          },
  };
}

function figuresBody({ version, ...counts }: BacktestFigures): object {
  return { version: version === 0 ? null : version, ...counts };
}

function alertBody({
  activeMicros,
  firedMicros,
  resolvedMicros,
  ...alertOf
}: BacktestResult['alerts'][number]): object {
  return {
    ...alertOf,
    activeAt: formatMicros(activeMicros),
    firedAt: formatMicros(firedMicros),
    resolvedAt: resolvedMicros === null ? null : formatMicros(resolvedMicros),
  };
}

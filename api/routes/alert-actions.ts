import { z } from 'zod';
import { AlertNotFoundError } from '../../rule-errors.ts';
import type { Author } from '../../registry/devices.ts';
import type { StoredAlert } from '../../rules/alert/alert-row.ts';
import type { Alerts } from '../../rules/alert/alerts.ts';
import { defineRoute, type Route } from '../route.ts';
import { durationText, freeText, labelText, timeText, uuidOf } from '../schemas.ts';
import { alertAnswer, alertBody } from './alert-answers.ts';
import { authorOf } from './devices.ts';

const CONTENT_CHARS_MAX = 4000;
const SNOOZE_MICROS_MAX = 30 * 86_400_000_000;

const alertParams = z.strictObject({ alertId: z.string().describe('Id of the alert.') });
/** Of a body that may be left out. */
const commented = z
  .strictObject({ comment: freeText(CONTENT_CHARS_MAX).default('').describe('For the history.') })
  .nullish()
  .transform((body) => body ?? { comment: '' });

/** One thing that people do with an alert. */
interface ActionOf<Body> {
  readonly verb: string;
  readonly summary: string;
  readonly description?: string;
  readonly body: z.ZodType<Body>;
  readonly act: (author: Author, alertId: string, body: Body) => Promise<StoredAlert>;
}

/** The routes of what people do with alerts. */
export function alertActionRoutes(alerts: Alerts, now: () => number): Route[] {
  return [
    actionRoute({
      verb: 'acknowledge',
      summary: 'Take notice of an alert that has not ended',
      description: 'The first one to do so stays; every one leaves a note.',
      body: commented,
      act: (author, alertId, { comment }) => alerts.acknowledge(author, alertId, comment),
    }),
    actionRoute({
      verb: 'assign',
      summary: 'Say who looks after an alert',
      body: z.strictObject({
        assignee: labelText(100).nullable().describe('A name of your own; null: nobody.'),
      }),
      act: (author, alertId, { assignee }) => alerts.assign(author, alertId, assignee),
    }),
    actionRoute({
      verb: 'comment',
      summary: 'Write a note to an alert',
      body: z.strictObject({ content: freeText(CONTENT_CHARS_MAX).min(1) }),
      act: (author, alertId, { content }) => alerts.comment(author, alertId, content),
    }),
    snoozeRoute(alerts, now),
    actionRoute({
      verb: 'resolve',
      summary: 'End an alert by hand',
      description: `It ends with the reason resolved_by_hand. While its condition goes on to hold, another
alert begins at the next reading.`,
      body: commented,
      act: (author, alertId, { comment }) => alerts.resolve(author, alertId, comment),
    }),
    actionRoute({
      verb: 'verdict',
      summary: 'Say whether an alert was right to fire',
      description: 'The statistics of its rule make its precision of this, for each version.',
      body: z.strictObject({ verdict: z.boolean().nullable().describe('null takes it back.') }),
      act: (author, alertId, { verdict }) => alerts.judge(author, alertId, verdict),
    }),
  ];
}

function snoozeRoute(alerts: Alerts, now: () => number): Route {
  return actionRoute({
    verb: 'snooze',
    summary: 'Tell nobody of an alert for a while',
    description: 'Until then, or until it ends. At most 30 days.',
    body: z
      .strictObject({
        for: durationText.optional().describe('From now on: 30m, 2h.'),
        until: timeText.nullable().optional().describe('A time; null ends a snooze.'),
      })
      .refine((body) => (body.for === undefined) !== (body.until === undefined), {
        message: 'must have either "for" or "until"',
      })
      .transform(({ for: forMicros, until }, context) => {
        if (until === null) return { untilMicros: null };
        const nowMicros = now() * 1000;
        const untilMicros = until ?? nowMicros + (forMicros ?? 0);
        if (untilMicros > nowMicros && untilMicros <= nowMicros + SNOOZE_MICROS_MAX) {
          return { untilMicros };
        }
        context.addIssue('must end within 30 days, and not before now');
        return z.NEVER;
      }),
    act: (author, alertId, { untilMicros }) => alerts.snooze(author, alertId, untilMicros),
  });
}

function actionRoute<Body>({ verb, summary, description, body, act }: ActionOf<Body>): Route {
  return defineRoute({
    method: 'POST',
    path: `/api/v1/alerts/{alertId}/${verb}`,
    role: 'admin',
    tag: 'alerts',
    summary,
    ...(description === undefined ? {} : { description }),
    params: alertParams,
    body,
    answers: { 200: { description: 'The alert as it is now.', schema: alertAnswer } },
    async handle({ principal, params, body: asked }) {
      const alert = await act(
        authorOf(principal),
        uuidOf(params.alertId, AlertNotFoundError),
        asked,
      );
      return { status: 200, body: alertBody(alert) };
    },
  });
}

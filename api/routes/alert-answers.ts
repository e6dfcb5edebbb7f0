import { z } from 'zod';
import type { InspectedAlert } from '../../rules/alert/alerts.ts';
import { ALERT_STATES, type StoredAlert } from '../../rules/alert/alert-row.ts';
import type { AlertFigures, AlertStatistics } from '../../rules/alert/alert-statistics.ts';
import { formatDuration } from '../../duration.ts';
import { timeAnswer } from '../schemas.ts';
import { formatMicros } from '../time-text.ts';
import { severitySchema } from './rule-answers.ts';

/** States of alerts. */
export const alertState = z
  .enum(ALERT_STATES)
  .describe('resolved: it has fired and ended; inactive: it ended before it fired.');

const alertMembers = {
  id: z.uuid(),
  rule: z.string().describe('Name of the rule.'),
  ruleId: z.uuid(),
  ruleVersion: z.number().int().describe('Version that found it.'),
  device: z.string().nullable().describe('null of one that is being deleted.'),
  groupKey: z.string().describe('Value of "groupBy" of the rule; "" without it.'),
  state: alertState,
  severity: severitySchema,
  value: z
    .union([z.number(), z.string()])
    .nullable()
    .describe('Of the first metric of the rule, when it fired or, while pending, began.'),
  labels: z.record(z.string(), z.string()),
  annotations: z.record(z.string(), z.string()),
  activeAt: timeAnswer.describe('Since when the condition held, in the time of readings.'),
  firedAt: timeAnswer.nullable(),
  resolvedAt: timeAnswer.nullable(),
  changedAt: timeAnswer.describe('Of the last step.'),
  occurrences: z.number().int().describe('Times that it fired while it was open.'),
  shadow: z.boolean().describe('Of a rule in shadow mode: nobody was told.'),
  historical: z.boolean().describe('Found in readings that came late: nobody was told.'),
  acknowledgedAt: timeAnswer.nullable(),
  acknowledgedBy: z.string().nullable().describe('Id of a key.'),
  assignee: z.string().nullable(),
  snoozedUntil: timeAnswer.nullable().describe('Nobody is told of it until then.'),
  verdict: z.boolean().nullable().describe('Whether people say that it was right to fire.'),
  verdictBy: z.string().nullable(),
  verdictAt: timeAnswer.nullable(),
};

/** An alert. */
export const alertAnswer = z.object(alertMembers);

const phase = z.enum(['inactive', 'pending', 'firing']);

/** An alert with what happened to it. */
export const inspectedAnswer = z.object({
  ...alertMembers,
  transitions: z
    .array(
      z.object({
        sequence: z.number().int(),
        at: timeAnswer.describe('In the time of readings.'),
        from: phase,
        to: phase,
        severity: severitySchema,
        reason: z.string(),
        detail: z.unknown().describe('Operands, times of samples, timers.'),
        ruleVersion: z.number().int(),
        historical: z.boolean(),
        recordedAt: timeAnswer,
      }),
    )
    .describe('The last 500.'),
  notes: z
    .array(
      z.object({
        id: z.uuid(),
        at: timeAnswer,
        actor: z.string().describe('Id of a key.'),
        kind: z.string().describe('comment, acknowledge, assign, snooze, resolve, verdict.'),
        content: z.string(),
      }),
    )
    .describe('The last 500.'),
  notifications: z
    .array(
      z.object({
        id: z.uuid(),
        receiver: z.string().nullable().describe('Name; null when it was deleted.'),
        kind: z.string(),
        state: z.string().describe('waiting, sent, dead, or suppressed.'),
        reason: z.string().nullable(),
        by: z.string().nullable().describe('The silence, or the rule and device that inhibited.'),
        attempts: z.number().int(),
        createdAt: timeAnswer,
        sentAt: timeAnswer.nullable(),
      }),
    )
    .describe('The last 500.'),
});

const figureMembers = {
  fires: z.number().int().describe('Alerts that fired.'),
  shadowFires: z.number().int().describe('Of these in shadow mode.'),
  occurrences: z.number().int().describe('Times that they fired, again while open too.'),
  acknowledged: z.number().int(),
  timeToAcknowledge: z
    .object({ p50: z.string(), p90: z.string() })
    .nullable()
    .describe('Durations; null when none was acknowledged.'),
  trueAlerts: z.number().int().describe('Of which people say that they were right to fire.'),
  falseAlerts: z.number().int(),
  precision: z.number().nullable().describe('True ones among the judged; null without any.'),
};

const overallMembers = {
  from: timeAnswer,
  to: timeAnswer,
  firesPerDay: z.number(),
  ...figureMembers,
  days: z
    .array(z.object({ day: z.string().describe('In UTC.'), ...figureMembers }))
    .describe('Days with any, in order.'),
};

/** Statistics of a rule. */
export const ruleStatisticsAnswer = z.object({
  ...overallMembers,
  versions: z
    .array(z.object({ version: z.number().int(), ...figureMembers }))
    .describe('Those that fired, newest first.'),
});

/** Statistics of an organization. */
export const organizationStatisticsAnswer = z.object({
  ...overallMembers,
  open: z
    .object({
      pending: z.number().int(),
      firing: z.number().int(),
      unacknowledged: z.number().int().describe('Firing, and nobody has taken notice.'),
    })
    .describe('At this moment, without shadows.'),
  severities: z
    .array(z.object({ severity: severitySchema, ...figureMembers }))
    .describe('The worst first.'),
  rules: z
    .array(z.object({ id: z.uuid(), rule: z.string(), ...figureMembers }))
    .describe('The 50 that fire most.'),
});

/** An alert as the API answers it. */
export function alertBody(alert: StoredAlert): z.input<typeof alertAnswer> {
  return {
    id: alert.alertId,
    rule: alert.rule,
    ruleId: alert.rulePublicId,
    ruleVersion: alert.ruleVersion,
    device: alert.device,
    groupKey: alert.groupKey,
    state: alert.state,
    severity: alert.severity,
    value: alert.value,
    labels: alert.labels,
    annotations: alert.annotations,
    activeAt: formatMicros(alert.activeMicros),
    firedAt: timeOf(alert.firedMicros),
    resolvedAt: timeOf(alert.resolvedMicros),
    changedAt: formatMicros(alert.changedMicros),
    occurrences: alert.occurrences,
    shadow: alert.isShadow,
    historical: alert.isHistorical,
    acknowledgedAt: timeOf(alert.acknowledgedMicros),
    acknowledgedBy: alert.acknowledgedBy,
    assignee: alert.assignee,
    snoozedUntil: timeOf(alert.snoozedUntilMicros),
    verdict: alert.verdict,
    verdictBy: alert.verdictBy,
    verdictAt: timeOf(alert.verdictMicros),
  };
}

/** An alert with its history. */
export function inspectedBody(inspected: InspectedAlert): z.input<typeof inspectedAnswer> {
  return {
    ...alertBody(inspected.alert),
    transitions: inspected.transitions.map(
      ({ atMicros, recordedMicros, isHistorical, ...rest }) => ({
        ...rest,
        at: formatMicros(atMicros),
        historical: isHistorical,
        recordedAt: formatMicros(recordedMicros),
      }),
    ),
    notes: inspected.notes.map(({ noteId, atMicros, ...rest }) => ({
      id: noteId,
      at: formatMicros(atMicros),
      ...rest,
    })),
    notifications: inspected.notifications.map(
      ({ notificationId, createdMicros, sentMicros, ...rest }) => ({
        id: notificationId,
        ...rest,
        createdAt: formatMicros(createdMicros),
        sentAt: timeOf(sentMicros),
      }),
    ),
  };
}

/** What statistics of every kind begin with. */
export function overallBody(
  { total, days }: AlertStatistics,
  { fromMicros, toMicros }: { readonly fromMicros: number; readonly toMicros: number },
) {
  const firesPerDay = total.fires / ((toMicros - fromMicros) / 86_400_000_000);
  return {
    from: formatMicros(fromMicros),
    to: formatMicros(toMicros),
    firesPerDay: Math.round(firesPerDay * 1000) / 1000,
    ...figuresBody(total),
    days: days.map(({ day, ...figures }) => ({ day, ...figuresBody(figures) })),
  };
}

/** Figures as the API answers them. */
export function figuresBody(figures: AlertFigures) {
  const { acknowledgeP50Micros: p50, acknowledgeP90Micros: p90 } = figures;
  return {
    fires: figures.fires,
    shadowFires: figures.shadowFires,
    occurrences: figures.occurrences,
    acknowledged: figures.acknowledged,
    timeToAcknowledge:
      p50 === null || p90 === null ? null : { p50: toSeconds(p50), p90: toSeconds(p90) },
    trueAlerts: figures.trueAlerts,
    falseAlerts: figures.falseAlerts,
    precision: figures.precision,
  };
}

/** To the second: a person took this time. */
function toSeconds(micros: number): string {
  return formatDuration(Math.round(micros / 1_000_000) * 1_000_000);
}

function timeOf(micros: number | null): string | null {
  return micros === null ? null : formatMicros(micros);
}

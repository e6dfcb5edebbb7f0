import { z } from 'zod';
import { AlertNotFoundError } from '../../rule-errors.ts';
import type { Devices } from '../../registry/devices.ts';
import { ALERT_STATES } from '../../rules/alert/alert-row.ts';
import type { AlertFilter } from '../../rules/alert/alert-query.ts';
import type { Alerts } from '../../rules/alert/alerts.ts';
import { SEVERITIES } from '../../rules/severity.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import {
  cursorQuery,
  flagQuery,
  labelText,
  limitQuery,
  listQuery,
  pageOf,
  timeText,
  uuidOf,
} from '../schemas.ts';
import { alertAnswer, alertBody, inspectedAnswer, inspectedBody } from './alert-answers.ts';
import { alertActionRoutes } from './alert-actions.ts';
import { alertStatisticsRoutes } from './alert-statistics.ts';

/** What the routes of alerts need. */
export interface AlertRoutesDeps {
  readonly alerts: Alerts;
  readonly devices: Devices;
  readonly pageRowsMax: number;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

const alertParams = z.strictObject({ alertId: z.string().describe('Id of the alert.') });
const place = z.tuple([z.int(), z.uuid()]);

/** The routes of alerts. */
export function alertRoutes(deps: AlertRoutesDeps): Route[] {
  return [
    listRoute(deps),
    getRoute(deps),
    ...alertActionRoutes(deps.alerts, deps.now),
    ...alertStatisticsRoutes(deps.alerts, deps.now),
  ];
}

const filterQuery = {
  state: listQuery(ALERT_STATES).describe(
    'Only in these states, with commas between: firing,pending.',
  ),
  severity: listQuery(SEVERITIES).describe('Only of these severities: high,critical.'),
  device: z.string().optional().describe('Only of this device.'),
  rule: z.string().min(1).max(100).optional().describe('Only of the rule of this name or id.'),
  acknowledged: flagQuery.describe('Only those of which somebody has taken notice, or not.'),
  assignee: labelText(100).optional().describe('Only those that this one looks after.'),
  shadow: flagQuery.describe('Only those of rules in shadow mode, or not.'),
  historical: flagQuery.describe('Only those found in readings that came late, or not.'),
  from: timeText.optional().describe('First time at which they began, inclusive.'),
  to: timeText.optional().describe('Last time at which they began, exclusive.'),
};

function listRoute({ alerts, devices, pageRowsMax }: AlertRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/alerts',
    role: 'admin',
    tag: 'alerts',
    summary: 'List alerts, those that began last first',
    query: z.strictObject({
      ...filterQuery,
      limit: limitQuery(100, pageRowsMax),
      cursor: cursorQuery,
    }),
    answers: { 200: { description: 'A page of alerts.', schema: pageOf(alertAnswer) } },
    async handle({ principal: { organizationId }, query: { limit, cursor, ...asked } }) {
      const filter = await filterOf(devices, organizationId, asked);
      const filters = ['alerts', organizationId, filter];
      const [activeMicros, alertId] =
        cursor === undefined ? [] : readCursor(filters, place, cursor);
      const after =
        activeMicros === undefined || alertId === undefined ? null : { activeMicros, alertId };
      const { rows, hasMore } = await alerts.list({ organizationId, ...filter, limit, after });
      const last = rows.at(-1);
      const next = hasMore ? writeCursor(filters, [last?.activeMicros, last?.alertId]) : null;
      return { status: 200, body: { data: rows.map(alertBody), next } };
    },
  });
}

function getRoute({ alerts }: AlertRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/alerts/{alertId}',
    role: 'admin',
    tag: 'alerts',
    summary: 'Get an alert with its steps, notes and notifications',
    params: alertParams,
    answers: { 200: { description: 'The alert.', schema: inspectedAnswer } },
    async handle({ principal: { organizationId }, params }) {
      const inspected = await alerts.get(
        organizationId,
        uuidOf(params.alertId, AlertNotFoundError),
      );
      return { status: 200, body: inspectedBody(inspected) };
    },
  });
}

async function filterOf(
  devices: Devices,
  organizationId: number,
  asked: z.output<z.ZodObject<typeof filterQuery>>,
): Promise<AlertFilter> {
  const { device } = asked;
  const deviceId =
    device === undefined ? null : (await devices.get(organizationId, device)).deviceId;
  return {
    states: asked.state ?? null,
    severities: asked.severity ?? null,
    deviceId,
    rule: asked.rule ?? null,
    isAcknowledged: asked.acknowledged ?? null,
    isShadow: asked.shadow ?? null,
    isHistorical: asked.historical ?? null,
    assignee: asked.assignee ?? null,
    fromMicros: asked.from ?? null,
    toMicros: asked.to ?? null,
  };
}

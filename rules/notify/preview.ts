import { inOrganization, type TenantDatabase } from '../../drizzle/transaction.ts';
import { AlertNotFoundError } from '../../rule-errors.ts';
import { SEVERITIES, type Level, type Severity } from '../severity.ts';
import { loadAlerts, type AlertView } from './alert-view.ts';
import type { Suppression } from './group-state.ts';
import { inhibitorOf, loadInhibitors } from './inhibit.ts';
import { loadMutes, muteOf } from './mute.ts';
import { loadRoutes, routesFor } from './route.ts';

/** Of what a preview is asked: an alert, or labels that one might have. */
export type PreviewOf =
  | { readonly alertId: string }
  | {
      readonly labels: Readonly<Record<string, string>>;
      readonly tags: readonly string[];
      readonly severity: Severity;
    };

/** A receiver that a route names. */
export interface PreviewedReceiver {
  readonly receiverId: string;
  readonly name: string;
  readonly kind: string;
  readonly routeId: string;
  readonly route: string;
  /** Whether it would be told now. */
  readonly isTold: boolean;
  /** Why not, and by what. */
  readonly reason: Suppression | null;
  readonly by: string | null;
}

/** Who would be told of an alert now. */
export interface Preview {
  /** Empty: no route matches, and nobody is told. */
  readonly receivers: readonly PreviewedReceiver[];
}

/**
 * Says who would be told of an alert if it changed now, by the same stages that decide on it. Group waits,
 * intervals and caps are not looked at: they put off, and do not decide.
 * @throws {AlertNotFoundError} @throws {StoreUnavailableError}
 */
export function previewNotification(
  database: TenantDatabase,
  organizationId: number,
  of: PreviewOf,
  nowMs: number,
): Promise<Preview> {
  return inOrganization(database, organizationId, async (transaction) => {
    const alert =
      'alertId' in of
        ? (await loadAlerts(transaction, organizationId, [of.alertId])).get(of.alertId)
        : imaginedAlert(of);
    if (alert === undefined) throw new AlertNotFoundError('alertId' in of ? of.alertId : '');
    const routes = routesFor(await loadRoutes(transaction, organizationId), alert);
    const mutes = await loadMutes(transaction, organizationId, nowMs);
    const inhibitors = await loadInhibitors(transaction, organizationId, [alert]);
    const { rows } = await transaction.client.query<{
      receiver_id: string;
      name: string;
      kind: string;
    }>(
      `SELECT receiver_id, name, kind FROM receiver
       WHERE organization_id = $1 AND receiver_id = ANY($2::uuid[])`,
      [organizationId, routes.flatMap(({ definition }) => definition.receivers)],
    );
    const known = new Map(rows.map((row) => [row.receiver_id, row]));
    const receivers = routes.flatMap(({ routeId, definition }) => {
      const hold = muteOf(alert, definition.quietHours, mutes) ?? inhibitorOf(alert, inhibitors);
      return definition.receivers.map((receiverId) => ({
        receiverId,
        name: known.get(receiverId)?.name ?? '',
        kind: known.get(receiverId)?.kind ?? '',
        routeId,
        route: definition.name,
        isTold: hold === null,
        reason: hold?.reason ?? null,
        by: hold?.by ?? null,
      }));
    });
    return { receivers };
  });
}

function imaginedAlert({
  labels,
  tags,
  severity,
}: Extract<PreviewOf, { readonly severity: Severity }>): AlertView {
  return {
    alertId: '',
    ruleId: 0,
    rulePublicId: '',
    rule: labels['alertname'] ?? '',
    deviceId: 0,
    device: labels['device'] ?? '',
    groupKey: '',
    isFiring: true,
    severity,
    level: (SEVERITIES.indexOf(severity) + 1) as Level,
    value: null,
    labels: { ...labels, severity },
    tags,
    annotations: {},
    activeAt: new Date(0),
    firedAt: null,
    resolvedAt: null,
    isUntold: false,
    isAcknowledged: false,
    snoozedUntilMs: null,
    suppressedBy: [],
  };
}

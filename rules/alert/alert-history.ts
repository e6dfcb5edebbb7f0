import type { Transaction } from '../../drizzle/transaction.ts';
import type { AlertPhase } from './alert.ts';
import { microsOf } from '../../drizzle/timestamp-text.ts';
import type { Severity } from '../severity.ts';
import type { TransitionReason } from './transition.ts';

/** A step of an alert as it was written. Times are in microseconds since 1970. */
export interface StoredTransition {
  readonly sequence: number;
  readonly ruleVersion: number;
  /** Event time. */
  readonly atMicros: number;
  readonly from: AlertPhase;
  readonly to: AlertPhase;
  readonly severity: Severity;
  readonly reason: TransitionReason;
  /** Operands, sample times and timers. */
  readonly detail: unknown;
  readonly isHistorical: boolean;
  readonly recordedMicros: number;
}

/** What somebody did with an alert, or wrote of it. */
export interface AlertNote {
  readonly noteId: string;
  readonly atMicros: number;
  /** Public id of a key. */
  readonly actor: string;
  readonly kind: string;
  readonly content: string;
}

/** A message to a receiver that speaks of an alert. */
export interface AlertNotification {
  readonly notificationId: string;
  /** Name; null when the receiver was deleted. */
  readonly receiver: string | null;
  readonly kind: string;
  readonly state: string;
  /** Why it was not sent, or the last error. */
  readonly reason: string | null;
  /** Of one that was not sent: the id of a silence, or the rule and device that inhibit. */
  readonly by: string | null;
  readonly attempts: number;
  readonly createdMicros: number;
  readonly sentMicros: number | null;
}

/** What happened to an alert, each in the order of time, the last 500 of each. */
export interface AlertHistory {
  readonly transitions: readonly StoredTransition[];
  readonly notes: readonly AlertNote[];
  readonly notifications: readonly AlertNotification[];
}

const SHOWN_MAX = 500;

/** Reads all of it. */
export async function readHistory(
  { client }: Transaction,
  organizationId: number,
  alertId: string,
): Promise<AlertHistory> {
  const values = [organizationId, alertId];
  const transitions = await client.query<StoredTransition>(
    `SELECT sequence, rule_version AS "ruleVersion", ${microsOf('at')} AS "atMicros",
       from_state AS "from", to_state AS "to", severity, reason, detail,
       is_historical AS "isHistorical", ${microsOf('recorded_at')} AS "recordedMicros"
     FROM alert_transition WHERE organization_id = $1 AND alert_id = $2
     ORDER BY sequence DESC LIMIT ${SHOWN_MAX}`,
    values,
  );
  const notes = await client.query<AlertNote>(
    `SELECT alert_note_id AS "noteId", ${microsOf('at')} AS "atMicros", actor, kind, content
     FROM alert_note WHERE organization_id = $1 AND alert_id = $2
     ORDER BY alert_note_id DESC LIMIT ${SHOWN_MAX}`,
    values,
  );
  const notifications = await client.query<AlertNotification>(
    `SELECT notification.notification_id AS "notificationId", receiver.name AS receiver,
       notification.kind, notification.state, notification.reason, notification.attempts,
       CASE WHEN notification.state = 'suppressed' THEN notification.content->>'by' END AS by,
       ${microsOf('notification.created_at')} AS "createdMicros",
       ${microsOf('notification.sent_at')} AS "sentMicros"
     FROM notification_alert JOIN notification USING (notification_id)
     LEFT JOIN receiver USING (receiver_id)
     WHERE notification_alert.organization_id = $1 AND notification_alert.alert_id = $2
     ORDER BY notification.notification_id DESC LIMIT ${SHOWN_MAX}`,
    values,
  );
  return {
    transitions: transitions.rows.toReversed(),
    notes: notes.rows.toReversed(),
    notifications: notifications.rows.toReversed(),
  };
}

import type { Database } from '../../drizzle/database.ts';
import { guardStore } from '../../drizzle/sqlstate.ts';
import type { NotifiedAlert } from './message.ts';

/** An alert with the names of its topic. Never one of a shadow rule, nor one that was found later. */
export interface TopicAlert {
  readonly organization: string;
  readonly groupKey: string;
  /** `pending` and `inactive`: it has no topic. */
  readonly state: string;
  readonly alert: NotifiedAlert;
}

/** Reads alerts for their topics. Rejects with a retryable `AppError` while the database is away. */
export interface AlertTopicRows {
  /** At most 500 ids. Those that are gone, or have no topic at all, are missing. */
  byIds(alertIds: readonly string[]): Promise<TopicAlert[]>;
  /** Firing alerts of all organizations behind an id, in order of ids; at most 500. */
  firing(afterId: string | null): Promise<TopicAlert[]>;
}

interface Row {
  organization: string;
  group_key: string;
  state: string;
  alert_id: string;
  rule_public_id: string;
  rule: string;
  device: string;
  severity: string;
  value: number | null;
  text_value: string | null;
  labels: Record<string, string>;
  annotations: Record<string, string>;
  active_at: Date;
  fired_at: Date | null;
  resolved_at: Date | null;
}

const PAGE_ROWS = 500;

const SELECT = `
  SELECT organization.slug AS organization, alert.group_key, alert.state, alert.alert_id,
         rule.public_id AS rule_public_id, rule.name AS rule, device.slug AS device, alert.severity,
         alert.value, alert.text_value, alert.labels, alert.annotations, alert.active_at,
         alert.fired_at, alert.resolved_at
  FROM alert
  JOIN organization ON organization.organization_id = alert.organization_id
  JOIN alert_rule AS rule
    ON rule.rule_id = alert.rule_id AND rule.organization_id = alert.organization_id
  JOIN device
    ON device.device_id = alert.device_id AND device.organization_id = alert.organization_id
  WHERE NOT alert.is_shadow AND NOT alert.is_historical`;

/** Makes {@link AlertTopicRows} over a database. */
export function createAlertTopicRows({ pool }: Pick<Database, 'pool'>): AlertTopicRows {
  return {
    async byIds(alertIds) {
      const text = `${SELECT} AND alert.alert_id = ANY($1::uuid[])`;
      const { rows } = await guardStore(pool.query<Row>(text, [[...alertIds]]));
      return rows.map((row) => topicAlertOf(row));
    },
    async firing(afterId) {
      const text = `${SELECT} AND alert.state = 'firing' AND ($1::uuid IS NULL OR alert.alert_id > $1)
        ORDER BY alert.alert_id LIMIT ${PAGE_ROWS}`;
      const { rows } = await guardStore(pool.query<Row>(text, [afterId]));
      return rows.map((row) => topicAlertOf(row));
    },
  };
}

function topicAlertOf(row: Row): TopicAlert {
  const { organization, group_key: groupKey, state } = row;
  const alert: NotifiedAlert = {
    alertId: row.alert_id,
    rule: row.rule,
    ruleId: row.rule_public_id,
    device: row.device,
    severity: row.severity,
    state: state === 'firing' ? 'firing' : 'resolved',
    value: row.value ?? row.text_value,
    labels: row.labels,
    annotations: row.annotations,
    activeAt: row.active_at.toISOString(),
    firedAt: row.fired_at?.toISOString() ?? null,
    resolvedAt: row.resolved_at?.toISOString() ?? null,
  };
  return { organization, groupKey, state, alert };
}

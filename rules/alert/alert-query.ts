import { cutPage, type Page } from '../../drizzle/page.ts';
import {
  inOrganization,
  type TenantDatabase,
  type Transaction,
} from '../../drizzle/transaction.ts';
import { RuleNotFoundError } from '../../rule-errors.ts';
import {
  ALERT_COLUMNS,
  ALERT_TABLES,
  alertOf,
  type AlertDatabaseRow,
  type StoredAlert,
  type StoredAlertState,
} from './alert-row.ts';
import { timestampText } from '../../drizzle/timestamp-text.ts';
import type { Severity } from '../severity.ts';

/** Which alerts; null does not ask. Times are those at which alerts began, in microseconds since 1970. */
export interface AlertFilter {
  readonly states: readonly StoredAlertState[] | null;
  readonly severities: readonly Severity[] | null;
  readonly deviceId: number | null;
  /** Name of a rule, of deleted ones too, or its public id. */
  readonly rule: string | null;
  readonly isAcknowledged: boolean | null;
  readonly isShadow: boolean | null;
  readonly isHistorical: boolean | null;
  readonly assignee: string | null;
  /** First time. */
  readonly fromMicros: number | null;
  /** First time that is no longer asked for. */
  readonly toMicros: number | null;
}

/** A question for alerts, newest first. */
export interface AlertQuery extends AlertFilter {
  readonly organizationId: number;
  readonly limit: number;
  /** Where the page before ended. */
  readonly after: { readonly activeMicros: number; readonly alertId: string } | null;
}

/** One page, those that began last first. @throws {RuleNotFoundError} of a rule that there never was. */
export async function listAlerts(
  database: TenantDatabase,
  query: AlertQuery,
): Promise<Page<StoredAlert>> {
  const { organizationId, limit, after } = query;
  const values: unknown[] = [organizationId, limit + 1];
  const give = (value: unknown): string => `$${values.push(value)}`;
  const clauses = clausesOf(query, give);
  if (after !== null) {
    const place = `${give(timestampText(after.activeMicros))}::timestamptz, ${give(after.alertId)}`;
    clauses.push(`(alert.active_at, alert.alert_id) < (${place}::uuid)`);
  }
  const { rows } = await inOrganization(database, organizationId, async (transaction) => {
    if (query.rule !== null) await assertRule(transaction, organizationId, query.rule);
    return transaction.client.query<AlertDatabaseRow>(
      // The page first, by its index; joined before, all that match would be read and sorted.
      `WITH alert AS MATERIALIZED (
         SELECT * FROM alert WHERE ${['alert.organization_id = $1', ...clauses].join(' AND ')}
         ORDER BY alert.active_at DESC, alert.alert_id DESC LIMIT $2)
       SELECT ${ALERT_COLUMNS} FROM ${ALERT_TABLES}
       ORDER BY alert.active_at DESC, alert.alert_id DESC`,
      values,
    );
  });
  return cutPage(rows.map(alertOf), limit);
}

/** Rules of organization $1 with a name, deleted ones too, or with a public id. */
function rulesCalled(parameter: string): string {
  return `SELECT rule_id FROM alert_rule
    WHERE organization_id = $1 AND (name = ${parameter} OR public_id::text = lower(${parameter}))`;
}

async function assertRule(
  { client }: Transaction,
  organizationId: number,
  rule: string,
): Promise<void> {
  // No rule is called so, and PostgreSQL takes no U+0000.
  if (/\p{Cc}|\p{Cs}/u.test(rule)) throw new RuleNotFoundError(rule);
  const { rowCount } = await client.query(`${rulesCalled('$2')} LIMIT 1`, [organizationId, rule]);
  if (rowCount === 0) throw new RuleNotFoundError(rule);
}

function clausesOf(filter: AlertFilter, give: (value: unknown) => string): string[] {
  const { states, severities, deviceId, rule, assignee, fromMicros, toMicros } = filter;
  const clauses: string[] = [];
  const giveTime = (micros: number): string => `${give(timestampText(micros))}::timestamptz`;
  // Not as a parameter, so that the index of what is open is used; they are of a closed set.
  if (states !== null) clauses.push(`alert.state IN (${states.map((of) => `'${of}'`).join(', ')})`);
  if (severities !== null) clauses.push(`alert.severity = ANY (${give(severities)})`);
  if (deviceId !== null) clauses.push(`alert.device_id = ${give(deviceId)}`);
  if (rule !== null) {
    const name = give(rule);
    clauses.push(`alert.rule_id IN (${rulesCalled(name)})`);
  }
  if (assignee !== null) clauses.push(`alert.assignee = ${give(assignee)}`);
  if (fromMicros !== null) clauses.push(`alert.active_at >= ${giveTime(fromMicros)}`);
  if (toMicros !== null) clauses.push(`alert.active_at < ${giveTime(toMicros)}`);
  return [...clauses, ...flagClauses(filter)];
}

function flagClauses({ isAcknowledged, isShadow, isHistorical }: AlertFilter): string[] {
  const clauses: string[] = [];
  if (isAcknowledged !== null) {
    clauses.push(`alert.acknowledged_at IS ${isAcknowledged ? 'NOT ' : ''}NULL`);
  }
  if (isShadow !== null) clauses.push(`alert.is_shadow = ${String(isShadow)}`);
  if (isHistorical !== null) clauses.push(`alert.is_historical = ${String(isHistorical)}`);
  return clauses;
}

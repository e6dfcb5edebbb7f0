import {
  inOrganization,
  type TenantDatabase,
  type Transaction,
} from '../../drizzle/transaction.ts';
import { timestampText } from '../../drizzle/timestamp-text.ts';
import { getRule } from '../rule-row.ts';
import { levelOf, type Severity } from '../severity.ts';

/** Figures of alerts that have fired. Those found later, in readings that came late, are not among them. */
export interface AlertFigures {
  /** Alerts. */
  readonly fires: number;
  /** Of these in shadow mode, where nobody was told. */
  readonly shadowFires: number;
  /** Times that they fired, again within `keepFiringFor` too. */
  readonly occurrences: number;
  readonly acknowledged: number;
  /** From firing to acknowledging; null when none was acknowledged. */
  readonly acknowledgeP50Micros: number | null;
  readonly acknowledgeP90Micros: number | null;
  /** Those of which people say that they were right, or wrong, to fire. */
  readonly trueAlerts: number;
  readonly falseAlerts: number;
  /** True ones among those that were judged; null when none was. */
  readonly precision: number | null;
}

/** Of which alerts: those that began in a time, in microseconds since 1970, `to` exclusive. */
export interface StatisticsQuery {
  readonly organizationId: number;
  readonly fromMicros: number;
  readonly toMicros: number;
}

/** Figures, and the alerts of each day. */
export interface AlertStatistics {
  readonly total: AlertFigures;
  /** Only days of UTC that have any, in order: `2026-11-21`. */
  readonly days: readonly (AlertFigures & { readonly day: string })[];
}

/** Of one rule. */
export interface RuleStatistics extends AlertStatistics {
  /** Newest first, only those that fired in this time. */
  readonly versions: readonly (AlertFigures & { readonly version: number })[];
}

/** Of an organization. */
export interface OrganizationStatistics extends AlertStatistics {
  /** At this moment, without shadows. */
  readonly open: {
    readonly pending: number;
    readonly firing: number;
    readonly unacknowledged: number;
  };
  /** The worst first. */
  readonly severities: readonly (AlertFigures & { readonly severity: Severity })[];
  /** The 50 that fire most, the noisiest first. */
  readonly rules: readonly (AlertFigures & { readonly publicId: string; readonly name: string })[];
}

const RULES_SHOWN_MAX = 50;

/** @throws {RuleNotFoundError} @throws {StoreUnavailableError} */
export function ruleStatistics(
  database: TenantDatabase,
  query: StatisticsQuery & { readonly publicId: string },
): Promise<RuleStatistics> {
  const { organizationId, publicId } = query;
  return inOrganization(database, organizationId, async (transaction) => {
    const { ruleId } = await getRule(transaction, organizationId, publicId);
    const rows = await readGroups(transaction, query, ruleId);
    const versions = rows
      .filter(({ of }) => of === 'subject')
      .map((row) => ({ version: row.subject ?? 0, ...figuresOf(row) }))
      .toSorted((a, b) => b.version - a.version);
    return { ...overallOf(rows), versions };
  });
}

/** @throws {StoreUnavailableError} */
export function organizationStatistics(
  database: TenantDatabase,
  query: StatisticsQuery,
): Promise<OrganizationStatistics> {
  return inOrganization(database, query.organizationId, async (transaction) => {
    const rows = await readGroups(transaction, query, null);
    const severities = rows
      .filter(({ of }) => of === 'severity')
      .map((row) => ({ severity: row.severity ?? 'info', ...figuresOf(row) }));
    const noisiest = rows
      .filter(({ of }) => of === 'subject')
      .toSorted((a, b) => b.fires - a.fires)
      .slice(0, RULES_SHOWN_MAX);
    const names = await namesOf(transaction, query.organizationId, noisiest);
    const rules = noisiest.flatMap((row) => {
      const name = names.get(row.subject ?? 0);
      return name === undefined ? [] : [{ ...name, ...figuresOf(row) }];
    });
    const open = await countOpen(transaction, query.organizationId);
    return { ...overallOf(rows), severities: bySeverity(severities), rules, open };
  });
}

/** Figures of one group, or of all. */
interface GroupRow {
  of: 'all' | 'subject' | 'severity' | 'day';
  subject: number | null;
  severity: Severity | null;
  day: string | null;
  fires: number;
  shadow_fires: number;
  occurrences: number;
  acknowledged: number;
  acknowledge_p50: number | null;
  acknowledge_p90: number | null;
  true_alerts: number;
  false_alerts: number;
}

/** By version of one rule, or by rule of all; by severity, by day, and altogether: in one pass. */
async function readGroups(
  { client }: Transaction,
  { organizationId, fromMicros, toMicros }: StatisticsQuery,
  ruleId: number | null,
): Promise<GroupRow[]> {
  const values = [organizationId, timestampText(fromMicros), timestampText(toMicros)];
  const { rows } = await client.query<GroupRow>(
    `SELECT
       CASE grouping(subject, severity, day)
         WHEN 3 THEN 'subject' WHEN 5 THEN 'severity' WHEN 6 THEN 'day' ELSE 'all' END AS of,
       subject, severity, day, count(*)::int4 AS fires,
       (count(*) FILTER (WHERE is_shadow))::int4 AS shadow_fires,
       coalesce(sum(occurrences), 0)::int4 AS occurrences, count(acknowledged_at)::int4 AS acknowledged,
       (count(*) FILTER (WHERE verdict))::int4 AS true_alerts,
       (count(*) FILTER (WHERE NOT verdict))::int4 AS false_alerts,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY waited) AS acknowledge_p50,
       percentile_cont(0.9) WITHIN GROUP (ORDER BY waited) AS acknowledge_p90
     FROM (
       SELECT ${ruleId === null ? 'alert.rule_id' : 'alert.rule_version'} AS subject, alert.severity,
         to_char(alert.active_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, is_shadow, occurrences,
         acknowledged_at, verdict,
         -- From when it was written: the clock of a device may be anywhere.
         CASE WHEN acknowledged_at IS NOT NULL THEN 1000000 * greatest(0,
           extract(epoch FROM acknowledged_at - coalesce(first.recorded_at, fired_at)))::float8
         END AS waited
       FROM alert LEFT JOIN LATERAL (
         SELECT recorded_at FROM alert_transition
         -- Asked here and not of the join: of the others no step is looked for.
         WHERE alert.acknowledged_at IS NOT NULL
           AND alert_transition.alert_id = alert.alert_id AND to_state = 'firing'
         ORDER BY sequence LIMIT 1
       ) AS first ON true
       WHERE alert.organization_id = $1 AND alert.active_at >= $2::timestamptz
         AND alert.active_at < $3::timestamptz AND fired_at IS NOT NULL AND NOT is_historical
         ${ruleId === null ? '' : 'AND alert.rule_id = $4'}
     ) AS fired
     GROUP BY GROUPING SETS ((), (subject), (severity), (day))`,
    ruleId === null ? values : [...values, ruleId],
  );
  return rows;
}

function overallOf(rows: readonly GroupRow[]): AlertStatistics {
  const total = rows.find(({ of }) => of === 'all');
  const days = rows
    .filter(({ of }) => of === 'day')
    .map((row) => ({ day: row.day ?? '', ...figuresOf(row) }))
    .toSorted((a, b) => a.day.localeCompare(b.day));
  if (total === undefined) throw new Error('a question without groups has an answer');
  return { total: figuresOf(total), days };
}

function figuresOf(row: GroupRow): AlertFigures {
  const judged = row.true_alerts + row.false_alerts;
  return {
    fires: row.fires,
    shadowFires: row.shadow_fires,
    occurrences: row.occurrences,
    acknowledged: row.acknowledged,
    acknowledgeP50Micros: row.acknowledge_p50,
    acknowledgeP90Micros: row.acknowledge_p90,
    trueAlerts: row.true_alerts,
    falseAlerts: row.false_alerts,
    precision: judged === 0 ? null : row.true_alerts / judged,
  };
}

function bySeverity<Row extends { readonly severity: Severity }>(rows: readonly Row[]): Row[] {
  return rows.toSorted((a, b) => levelOf(b.severity) - levelOf(a.severity));
}

async function namesOf(
  { client }: Transaction,
  organizationId: number,
  rows: readonly GroupRow[],
): Promise<ReadonlyMap<number, { readonly publicId: string; readonly name: string }>> {
  const { rows: named } = await client.query<{ rule_id: number; public_id: string; name: string }>(
    `SELECT rule_id, public_id, name FROM alert_rule
     WHERE organization_id = $1 AND rule_id = ANY ($2)`,
    [organizationId, rows.map(({ subject }) => subject)],
  );
  return new Map(named.map((row) => [row.rule_id, { publicId: row.public_id, name: row.name }]));
}

async function countOpen(
  { client }: Transaction,
  organizationId: number,
): Promise<OrganizationStatistics['open']> {
  const { rows } = await client.query<OrganizationStatistics['open']>(
    `SELECT (count(*) FILTER (WHERE state = 'pending'))::int4 AS pending,
       (count(*) FILTER (WHERE state = 'firing'))::int4 AS firing,
       (count(*) FILTER (WHERE state = 'firing' AND acknowledged_at IS NULL))::int4 AS unacknowledged
     FROM alert
     WHERE organization_id = $1 AND state IN ('pending', 'firing') AND NOT is_historical
       AND NOT is_shadow`,
    [organizationId],
  );
  return rows[0] ?? { pending: 0, firing: 0, unacknowledged: 0 };
}

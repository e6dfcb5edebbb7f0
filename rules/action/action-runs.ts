import type pg from 'pg';
import { cutPage, type Page } from '../../drizzle/page.ts';
import { guardStore } from '../../drizzle/sqlstate.ts';
import { inOrganization, type TenantDatabase } from '../../drizzle/transaction.ts';
import type { ActionFacts } from './interlock.ts';

/** A step of an alert that an action may follow. */
export interface ActionStep {
  readonly alertId: string;
  readonly sequence: number;
  readonly organizationId: number;
  readonly ruleId: number;
  readonly ruleVersion: number;
  /** Device of the alert. */
  readonly deviceId: number;
  readonly on: 'firing' | 'resolved';
  readonly atMs: number;
}

/** What an action did, or why it did nothing. */
export interface ActionRun {
  readonly alertId: string;
  readonly action: number;
  readonly sequence: number;
  /** Slug of the device that the command was for. */
  readonly device: string;
  readonly occurredAt: Date;
  readonly outcome: 'sent' | 'simulated' | 'blocked';
  readonly detail: string;
  readonly commandId: string | null;
}

/** Where in the list of runs a page begins. */
export interface RunPlace {
  readonly at: string;
  readonly alertId: string;
  readonly sequence: number;
  readonly action: number;
}

/** A run that is to be written. */
export interface NewActionRun extends Omit<ActionRun, 'device'> {
  readonly organizationId: number;
  readonly ruleId: number;
  readonly deviceId: number;
  readonly depth: number;
}

/** The device of an action. */
export interface ActionTarget {
  readonly deviceId: number;
  readonly device: string;
  /** Whether the action was taken for this step before, by a program that was killed behind it. */
  readonly isTaken: boolean;
  readonly facts: Omit<ActionFacts, 'nowMs' | 'stepMs'>;
}

interface TargetRow {
  device_id: number;
  slug: string;
  sent_in_hour: number;
  last_sent_ms: number | null;
  heard_ms: number | null;
  depth: number;
  is_taken: boolean;
}

/** One statement: what there is to know of the target of an action. */
const TARGET = `
  SELECT device.device_id, device.slug,
    (SELECT count(*)::int4 FROM rule_action_run run
     WHERE run.rule_id = $3 AND run.action = $4 AND run.device_id = device.device_id
       AND run.outcome <> 'blocked' AND run.occurred_at > to_timestamp($5) - interval '1 hour')
      AS sent_in_hour,
    (SELECT extract(epoch FROM max(run.occurred_at))::float8 * 1000 FROM rule_action_run run
     WHERE run.rule_id = $3 AND run.action = $4 AND run.device_id = device.device_id
       AND run.outcome <> 'blocked' AND run.occurred_at > to_timestamp($5) - interval '1 day')
      AS last_sent_ms,
    extract(epoch FROM greatest(
      (SELECT max(received_at) FROM device_latest latest WHERE latest.device_id = device.device_id),
      (SELECT last_contact_at FROM device_presence presence
       WHERE presence.device_id = device.device_id),
      (SELECT reported_at FROM device_configuration configuration
       WHERE configuration.device_id = device.device_id)))::float8 * 1000 AS heard_ms,
    coalesce((SELECT max(run.depth) FROM rule_action_run run
     WHERE run.device_id = $6 AND run.outcome <> 'blocked'
       AND run.occurred_at > to_timestamp($7) - $8::float8 * interval '1 second'
       AND run.occurred_at <= to_timestamp($7)), 0) + 1 AS depth,
    EXISTS (SELECT FROM rule_action_run run
     WHERE run.alert_id = $9 AND run.action = $4 AND run.sequence = $10) AS is_taken
  FROM device
  WHERE device.organization_id = $1
    AND CASE WHEN $2::text IS NULL THEN device.device_id = $6 ELSE device.slug = $2 END`;

/** Steps that somebody may have to act upon, of rules with actions, and not all of whose actions were taken. */
const MISSED = `
  SELECT step.alert_id, step.sequence, step.organization_id, step.rule_id, step.rule_version,
    step.device_id, step.to_state, extract(epoch FROM step.at)::float8 * 1000 AS at_ms
  FROM alert_transition step
  JOIN alert USING (alert_id)
  JOIN alert_rule_version said ON said.rule_id = step.rule_id AND said.version = step.rule_version
  WHERE step.recorded_at > to_timestamp($1) AND NOT step.is_historical AND NOT alert.is_shadow
    AND (step.from_state = 'firing') <> (step.to_state = 'firing')
    AND (step.to_state = 'firing' OR step.to_state = 'inactive')
    AND (SELECT count(*) FROM rule_action_run run
         WHERE run.alert_id = step.alert_id AND run.sequence = step.sequence)
      < (SELECT count(*)
         FROM jsonb_array_elements(coalesce(said.definition -> 'actions', '[]'::jsonb)) AS asked
         WHERE coalesce(asked ->> 'on', 'firing')
           = CASE step.to_state WHEN 'firing' THEN 'firing' ELSE 'resolved' END)
  ORDER BY step.recorded_at LIMIT $2`;

/** What actions of rules did, in SQL. Every function throws {@link StoreUnavailableError}. */
export class ActionRuns {
  readonly #database: TenantDatabase;
  readonly #pool: pg.Pool;

  constructor(database: TenantDatabase) {
    this.#database = database;
    this.#pool = database.pool;
  }

  /**
   * The device that an action is for, with what is known of it.
   * @param loopMs commands that were sent at most so long before the step may have led to it.
   * @returns null when there is no such device.
   */
  async target(
    step: ActionStep,
    action: { readonly index: number; readonly device: string | null },
    { nowMs, loopMs }: { readonly nowMs: number; readonly loopMs: number },
  ): Promise<ActionTarget | null> {
    const { rows } = await guardStore(
      this.#pool.query<TargetRow>({
        name: 'rule_action_target',
        text: TARGET,
        values: [
          step.organizationId,
          action.device,
          step.ruleId,
          action.index,
          nowMs / 1000,
          step.deviceId,
          step.atMs / 1000,
          loopMs / 1000,
          step.alertId,
          step.sequence,
        ],
      }),
    );
    const [row] = rows;
    if (row === undefined) return null;
    return {
      deviceId: row.device_id,
      device: row.slug,
      isTaken: row.is_taken,
      facts: {
        sentInHour: row.sent_in_hour,
        lastSentMs: row.last_sent_ms,
        heardMs: row.heard_ms,
        depth: row.depth,
      },
    };
  }

  /** Writes what an action did; once for each step. */
  async record(run: NewActionRun): Promise<void> {
    await guardStore(
      this.#pool.query(
        `INSERT INTO rule_action_run (alert_id, action, sequence, organization_id, rule_id, device_id,
           occurred_at, outcome, detail, command_id, depth)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11
         WHERE EXISTS (SELECT FROM device WHERE device_id = $6)
         ON CONFLICT DO NOTHING`,
        [
          run.alertId,
          run.action,
          run.sequence,
          run.organizationId,
          run.ruleId,
          run.deviceId,
          run.occurredAt,
          run.outcome,
          run.detail,
          run.commandId,
          run.depth,
        ],
      ),
    );
  }

  /** Steps recorded since then that nobody acted upon; the oldest `limit`. */
  async missed(sinceMs: number, limit: number): Promise<ActionStep[]> {
    const { rows } = await guardStore(
      this.#pool.query<{
        alert_id: string;
        sequence: number;
        organization_id: number;
        rule_id: number;
        rule_version: number;
        device_id: number;
        to_state: 'firing' | 'inactive';
        at_ms: number;
      }>(MISSED, [sinceMs / 1000, limit]),
    );
    return rows.map((row) => ({
      alertId: row.alert_id,
      sequence: row.sequence,
      organizationId: row.organization_id,
      ruleId: row.rule_id,
      ruleVersion: row.rule_version,
      deviceId: row.device_id,
      on: row.to_state === 'firing' ? ('firing' as const) : ('resolved' as const),
      atMs: row.at_ms,
    }));
  }

  /** Of a rule, newest first, those before `before`. */
  list(query: {
    readonly organizationId: number;
    readonly publicId: string;
    readonly limit: number;
    readonly before: RunPlace | null;
  }): Promise<Page<ActionRun>> {
    return inOrganization(this.#database, query.organizationId, async ({ client }) => {
      const { rows } = await client.query<ActionRun>(
        `SELECT run.alert_id AS "alertId", run.action, run.sequence, device.slug AS device,
           run.occurred_at AS "occurredAt", run.outcome, run.detail, run.command_id AS "commandId"
         FROM rule_action_run run
         JOIN alert_rule rule USING (rule_id)
         JOIN device ON device.device_id = run.device_id
         WHERE rule.public_id = $2 AND run.organization_id = $1
           AND ($3::timestamptz IS NULL
             OR (run.occurred_at, run.alert_id, run.sequence, run.action) < ($3, $4::uuid, $5, $6))
         ORDER BY run.occurred_at DESC, run.alert_id DESC, run.sequence DESC, run.action DESC
         LIMIT $7`,
        [
          query.organizationId,
          query.publicId,
          query.before?.at ?? null,
          query.before?.alertId ?? null,
          query.before?.sequence ?? 0,
          query.before?.action ?? 0,
          query.limit + 1,
        ],
      );
      return cutPage(rows, query.limit);
    });
  }
}

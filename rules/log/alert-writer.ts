import type pg from 'pg';
import { isUnavailable } from '../../drizzle/sqlstate.ts';
import { microsOf } from '../../drizzle/timestamp-text.ts';
import { inTransaction, type Transaction as StoreTransaction } from '../../drizzle/transaction.ts';
import { planAlerts, severityOfText, type AlertPlan, type StoredAlert } from './alert-plan.ts';
import {
  INSERT_ALERTS,
  INSERT_TRANSITIONS,
  UPDATE_ALERTS,
  alertRow,
  rowsJson,
  transitionRow,
} from './alert-rows.ts';
import { storable } from '../storable.ts';
import type { Transition } from '../alert/transition.ts';

/** What has become of transitions that were to be written. */
export interface WrittenTransitions {
  /** Those that are recorded now, as they are recorded. */
  readonly recorded: readonly Transition[];
  /** Recorded before, or no news to another program's alert. */
  readonly duplicates: number;
  /** Of devices that were deleted. */
  readonly orphans: number;
  /** Those that the database refuses whatever it is asked, each with why. */
  readonly refused: readonly { readonly transition: Transition; readonly reason: unknown }[];
  /** Devices of which another program has recorded something else. */
  readonly divergedDevices: ReadonlySet<number>;
}

/** Two programs write the same alerts: the second attempt sees what the other one wrote. */
const ATTEMPTS_MAX = 5;
/** Ids of alerts that another program's stand for; beyond it the oldest are forgotten. */
const ADOPTED_MAX = 10_000;

/**
 * Writes transitions and the alerts they belong to, a batch in one transaction. Writing a batch again is
 * harmless. What `planAlerts` says of it holds for the rows as they are while it is written: they are
 * locked, and a race with another program is seen and the batch planned anew.
 */
export class AlertWriter {
  readonly #pool: pg.Pool;
  readonly #adopted = new Set<string>();

  constructor(pool: pg.Pool) {
    this.#pool = pool;
  }

  /**
   * Writes transitions in their order. What the database refuses as such is found by halves and left out.
   * @throws {StoreUnavailableError} and whatever else lies with the database: nothing, or a part from the
   * beginning, is written then; to be called again with the same.
   */
  async write(transitions: readonly Transition[]): Promise<WrittenTransitions> {
    try {
      return await this.#writeAll(transitions);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      const [first] = transitions;
      if (transitions.length === 1 && first !== undefined) {
        return { ...NOTHING, refused: [{ transition: first, reason: error }] };
      }
    }
    const middle = transitions.length >> 1;
    const before = await this.write(transitions.slice(0, middle));
    return joined(before, await this.write(transitions.slice(middle)));
  }

  async #writeAll(transitions: readonly Transition[]): Promise<WrittenTransitions> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        const plan = await inTransaction(this.#pool, (transaction) =>
          this.#writeOnce(transaction, transitions),
        );
        this.#remember(plan.adopted);
        return {
          recorded: plan.transitions.map(({ transition }) => transition),
          duplicates: plan.duplicates,
          orphans: plan.orphans,
          refused: [],
          divergedDevices: plan.divergedDevices,
        };
      } catch (error) {
        if (!(error instanceof RacedError) || attempt === ATTEMPTS_MAX) throw error;
      }
    }
  }

  async #writeOnce(
    { client }: StoreTransaction,
    transitions: readonly Transition[],
  ): Promise<AlertPlan> {
    const devices = await findDevices(client, transitions);
    const plan = planAlerts({
      transitions,
      stored: await lockAlerts(client, transitions),
      hasDevice: (deviceId, organizationId) => devices.get(deviceId) === organizationId,
      adopted: this.#adopted,
    });
    const changed = plan.alerts.filter(({ isNew }) => !isNew);
    const made = plan.alerts.filter(({ isNew }) => isNew);
    // In this order: an alert may end and the next one of its key begin in one batch.
    if (changed.length > 0) await client.query(UPDATE_ALERTS, [rowsJson(changed.map(alertRow))]);
    if (made.length > 0) {
      const { rowCount } = await client.query(INSERT_ALERTS, [rowsJson(made.map(alertRow))]);
      if (rowCount !== made.length) throw new RacedError();
    }
    if (plan.transitions.length > 0) {
      await client.query(INSERT_TRANSITIONS, [rowsJson(plan.transitions.map(transitionRow))]);
    }
    return plan;
  }

  #remember(adopted: ReadonlySet<string>): void {
    for (const alertId of adopted) {
      this.#adopted.delete(alertId);
      this.#adopted.add(alertId);
    }
    for (const oldest of this.#adopted) {
      if (this.#adopted.size <= ADOPTED_MAX) break;
      this.#adopted.delete(oldest);
    }
  }
}

/** Another program wrote an alert between our look at it and our write. */
class RacedError extends Error {
  constructor() {
    super('an alert is on record that was not there before');
  }
}

const NOTHING: WrittenTransitions = {
  recorded: [],
  duplicates: 0,
  orphans: 0,
  refused: [],
  divergedDevices: new Set(),
};

function joined(left: WrittenTransitions, right: WrittenTransitions): WrittenTransitions {
  return {
    recorded: [...left.recorded, ...right.recorded],
    duplicates: left.duplicates + right.duplicates,
    orphans: left.orphans + right.orphans,
    refused: [...left.refused, ...right.refused],
    divergedDevices: new Set([...left.divergedDevices, ...right.divergedDevices]),
  };
}

/**
 * Classes 22 (data), 23 (integrity) and 54 (too large for the database) can lie with the rows. So do ours:
 * no row can be made of a transition, or it never fits what is on record.
 */
function isRefusal(error: unknown): boolean {
  if (error instanceof RacedError || error instanceof RangeError) return true;
  if (isUnavailable(error)) return false;
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === 'string' && /^(22|23|54)/.test(code);
}

async function findDevices(
  client: pg.PoolClient,
  transitions: readonly Transition[],
): Promise<Map<number, number>> {
  const ids = [...new Set(transitions.map(({ deviceId }) => deviceId))];
  const { rows } = await client.query<{ device_id: number; organization_id: number }>(
    'SELECT device_id, organization_id FROM device WHERE device_id = ANY($1)',
    [ids],
  );
  return new Map(rows.map((row) => [row.device_id, row.organization_id]));
}

interface StoredAlertRow {
  alert_id: string;
  rule_id: number;
  device_id: number;
  group_key: string;
  state: StoredAlert['state'];
  severity: string;
  sequence: number;
  occurrences: number;
  active_micros: number;
  fired_micros: number | null;
  changed_micros: number;
  is_shadow: boolean;
  is_historical: boolean;
}

/** Every alert that the transitions are of, and every open one that stands in the place of one. */
async function lockAlerts(
  client: pg.PoolClient,
  transitions: readonly Transition[],
): Promise<StoredAlert[]> {
  const keys = transitions.map(({ ruleId, deviceId, groupKey }) => ({
    rule_id: ruleId,
    device_id: deviceId,
    group_key: storable(groupKey),
  }));
  const { rows } = await client.query<StoredAlertRow>(
    `SELECT alert_id, rule_id, device_id, group_key, state, severity, sequence, occurrences,
       ${microsOf('active_at')} AS active_micros, ${microsOf('fired_at')} AS fired_micros,
       ${microsOf('changed_at')} AS changed_micros, is_shadow,
       is_historical
     FROM alert
     WHERE alert_id IN (
       SELECT unnest($1::uuid[])
       UNION
       SELECT open.alert_id
       FROM jsonb_to_recordset($2::jsonb) AS given (rule_id int4, device_id int4, group_key text)
       JOIN alert AS open ON open.rule_id = given.rule_id AND open.device_id = given.device_id
         AND open.group_key = given.group_key
       WHERE open.state IN ('pending', 'firing') AND NOT open.is_historical)
     ORDER BY alert_id FOR NO KEY UPDATE`,
    [[...new Set(transitions.map(({ alertId }) => alertId))], rowsJson(keys)],
  );
  return rows.map((row) => ({
    alertId: row.alert_id,
    ruleId: row.rule_id,
    deviceId: row.device_id,
    groupKey: row.group_key,
    state: row.state,
    severity: severityOfText(row.severity),
    sequence: row.sequence,
    occurrences: row.occurrences,
    activeMicros: row.active_micros,
    firedMicros: row.fired_micros,
    changedMicros: row.changed_micros,
    isShadow: row.is_shadow,
    isHistorical: row.is_historical,
  }));
}

import type { Page } from '../../drizzle/page.ts';
import {
  inOrganization,
  type TenantDatabase,
  type Transaction,
} from '../../drizzle/transaction.ts';
import { makeUuidV7 } from '../../drizzle/uuid-v7.ts';
import {
  AlertEndedError,
  AlertNoteLimitError,
  AlertNotFoundError,
  AlertNotHeldError,
} from '../../rule-errors.ts';
import { readHistory, type AlertHistory } from './alert-history.ts';
import { listAlerts, type AlertQuery } from './alert-query.ts';
import { getAlert, type StoredAlert } from './alert-row.ts';
import { timestampText } from '../../drizzle/timestamp-text.ts';
import {
  organizationStatistics,
  ruleStatistics,
  type OrganizationStatistics,
  type RuleStatistics,
  type StatisticsQuery,
} from './alert-statistics.ts';
import type { RuleAuthor, WriteAudit } from '../audit.ts';

/** An alert with everything that happened to it. */
export interface InspectedAlert extends AlertHistory {
  readonly alert: StoredAlert;
}

/** An alert that a person wants to end, for the one who evaluates it. */
export interface EndedByHand {
  readonly alertId: string;
  readonly organizationId: number;
  readonly ruleId: number;
  readonly deviceId: number;
  readonly groupKey: string;
  /** Public id of the key that asked for it. */
  readonly actor: string;
}

/**
 * Ends an alert that is evaluated in this program. `ended`: it is written down that it has ended.
 * `not held`: it is not in memory here.
 */
export type ResolveByHand = (wanted: EndedByHand) => Promise<'ended' | 'not held'>;

/** What {@link createAlerts} needs. */
export interface AlertsDeps {
  readonly database: TenantDatabase;
  readonly writeAudit: WriteAudit;
  /** Null: nothing is evaluated in this program, and so nothing can be ended. */
  readonly resolveByHand: ResolveByHand | null;
  /** Told after COMMIT of a snooze, so that notifications follow it. */
  readonly onSnoozed?: ((alertId: string) => void) | undefined;
}

/** Notes of an alert. Behind them comments are refused, and what else is done is in the audit trail alone. */
const NOTES_MAX = 1000;

/** What people do with an alert; also the kind of the note that it leaves. */
export type AlertAction = 'acknowledge' | 'assign' | 'comment' | 'snooze' | 'resolve' | 'verdict';

/** Makes it. */
export function createAlerts(deps: AlertsDeps): Alerts {
  return new Alerts(deps);
}

/**
 * The alerts of all organizations, and what people do with them: each act leaves a note at the alert and
 * a line in the audit trail. All throw {@link StoreUnavailableError} and, of one alert,
 * {@link AlertNotFoundError}.
 */
export class Alerts {
  readonly #deps: AlertsDeps;

  constructor(deps: AlertsDeps) {
    this.#deps = deps;
  }

  /** One page, those that began last first. @throws {RuleNotFoundError} of one that is asked for. */
  list(query: AlertQuery): Promise<Page<StoredAlert>> {
    return listAlerts(this.#deps.database, query);
  }

  /** An alert with its history. */
  get(organizationId: number, alertId: string): Promise<InspectedAlert> {
    return this.#within(organizationId, async (transaction) => ({
      alert: await getAlert(transaction, organizationId, alertId),
      ...(await readHistory(transaction, organizationId, alertId)),
    }));
  }

  /** Of one rule, of all its versions. @throws {RuleNotFoundError} */
  ruleStatistics(query: StatisticsQuery & { readonly publicId: string }): Promise<RuleStatistics> {
    return ruleStatistics(this.#deps.database, query);
  }

  /** Of all rules of an organization. */
  organizationStatistics(query: StatisticsQuery): Promise<OrganizationStatistics> {
    return organizationStatistics(this.#deps.database, query);
  }

  /** Somebody takes notice; the first one stays. @throws {AlertEndedError} */
  acknowledge(author: RuleAuthor, alertId: string, comment: string): Promise<StoredAlert> {
    return this.#act(author, alertId, {
      action: 'acknowledge',
      content: comment,
      ofOpen: true,
      set: `acknowledged_at = coalesce(acknowledged_at, now()),
            acknowledged_by = coalesce(acknowledged_by, $3)`,
      value: author.actor,
    });
  }

  /** Who looks after it; null: nobody. */
  assign(author: RuleAuthor, alertId: string, assignee: string | null): Promise<StoredAlert> {
    return this.#act(author, alertId, {
      action: 'assign',
      content: assignee ?? '',
      set: 'assignee = $3::text',
      value: assignee,
    });
  }

  /** Leaves a note and nothing else. @throws {AlertNoteLimitError} */
  comment(author: RuleAuthor, alertId: string, content: string): Promise<StoredAlert> {
    return this.#act(author, alertId, { action: 'comment', content, set: null, value: null });
  }

  /**
   * Nobody is told of it until then; null ends a snooze. Microseconds since 1970.
   * @throws {AlertEndedError}
   */
  async snooze(
    author: RuleAuthor,
    alertId: string,
    untilMicros: number | null,
  ): Promise<StoredAlert> {
    const until = untilMicros === null ? null : timestampText(untilMicros);
    const alert = await this.#act(author, alertId, {
      action: 'snooze',
      content: until ?? '',
      ofOpen: true,
      set: 'snoozed_until = $3::timestamptz',
      value: until,
    });
    this.#deps.onSnoozed?.(alertId);
    return alert;
  }

  /** What people say of it afterwards: whether it was right to fire. Null takes it back. */
  judge(author: RuleAuthor, alertId: string, verdict: boolean | null): Promise<StoredAlert> {
    const set = `verdict = $3::boolean,
      verdict_by = CASE WHEN $3::boolean IS NULL THEN NULL ELSE $4::text END,
      verdict_at = CASE WHEN $3::boolean IS NULL THEN NULL ELSE now() END`;
    return this.#act(author, alertId, {
      action: 'verdict',
      content: verdict === null ? '' : String(verdict),
      set,
      value: verdict,
      isSigned: true,
    });
  }

  /**
   * Ends it now, as `resolved_by_hand`. Resolves when that is written down.
   * @throws {AlertEndedError} @throws {AlertNotHeldError} ask again.
   */
  async resolve(author: RuleAuthor, alertId: string, comment: string): Promise<StoredAlert> {
    const { organizationId, actor } = author;
    const alert = await this.#within(organizationId, (transaction) =>
      getAlert(transaction, organizationId, alertId),
    );
    const { ruleId, deviceId, groupKey } = alert;
    if (isEnded(alert)) throw new AlertEndedError(alertId);
    const wanted = { alertId, organizationId, ruleId, deviceId, groupKey, actor };
    const outcome = await (this.#deps.resolveByHand?.(wanted) ?? 'not held');
    if (outcome === 'not held') throw new AlertNotHeldError(alertId);
    const change = { action: 'resolve', content: comment, set: null, value: null } as const;
    return this.#act(author, alertId, change);
  }

  #act(author: RuleAuthor, alertId: string, change: AlertChange): Promise<StoredAlert> {
    const { organizationId, actor } = author;
    return this.#within(organizationId, async (transaction) => {
      await lockAlert(transaction, organizationId, alertId, change.ofOpen === true);
      if (change.set !== null) {
        const signed = change.isSigned === true ? [actor] : [];
        await transaction.client.query(
          `UPDATE alert SET ${change.set} WHERE organization_id = $1 AND alert_id = $2`,
          [organizationId, alertId, change.value, ...signed],
        );
      }
      await addNote(transaction, author, alertId, change);
      await this.#deps.writeAudit(transaction.orm, {
        organizationId,
        actor,
        action: `alert.${change.action}`,
        subject: `alert/${alertId}`,
        change: { content: change.content },
      });
      return getAlert(transaction, organizationId, alertId);
    });
  }

  #within<T>(organizationId: number, work: (transaction: Transaction) => Promise<T>): Promise<T> {
    return inOrganization(this.#deps.database, organizationId, work);
  }
}

interface AlertChange {
  readonly action: AlertAction;
  /** Of the note. */
  readonly content: string;
  /** Columns, with `value` as $3 and, when signed, the actor as $4; null changes none. */
  readonly set: string | null;
  readonly value: string | boolean | null;
  readonly isSigned?: boolean;
  /** Refused of an alert that has ended. */
  readonly ofOpen?: boolean;
}

function isEnded({ state }: Pick<StoredAlert, 'state'>): boolean {
  return state === 'resolved' || state === 'inactive';
}

/** Locked, so that its notes stay counted until COMMIT. */
async function lockAlert(
  { client }: Transaction,
  organizationId: number,
  alertId: string,
  ofOpen: boolean,
): Promise<void> {
  const { rows } = await client.query<Pick<StoredAlert, 'state'>>(
    'SELECT state FROM alert WHERE organization_id = $1 AND alert_id = $2 FOR NO KEY UPDATE',
    [organizationId, alertId],
  );
  const [row] = rows;
  if (row === undefined) throw new AlertNotFoundError(alertId);
  if (ofOpen && isEnded(row)) throw new AlertEndedError(alertId);
}

async function addNote(
  { client }: Transaction,
  { organizationId, actor }: RuleAuthor,
  alertId: string,
  { action, content }: AlertChange,
): Promise<void> {
  const { rowCount } = await client.query(
    `INSERT INTO alert_note (alert_note_id, alert_id, organization_id, actor, kind, content)
     SELECT $1, $2, $3, $4, $5, $6
     WHERE (SELECT count(*) FROM alert_note WHERE organization_id = $3 AND alert_id = $2) < $7`,
    [makeUuidV7(Date.now()), alertId, organizationId, actor, action, content, NOTES_MAX],
  );
  if (rowCount === 0 && action === 'comment') throw new AlertNoteLimitError(NOTES_MAX);
}

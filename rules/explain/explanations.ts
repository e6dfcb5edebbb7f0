import { inOrganization, type TenantDatabase } from '../../drizzle/transaction.ts';
import { readHistory, type StoredTransition } from '../alert/alert-history.ts';
import { getAlert, type StoredAlert } from '../alert/alert-row.ts';
import type { Operand } from '../compiled-rule.ts';
import { readStored } from '../rule-check.ts';
import type { RuleJson } from '../rule-row.ts';
import { readDetail } from '../alert/transition-detail.ts';
import { stepWords } from './step-words.ts';
import { toldWords } from './told-words.ts';
import { timeWords, valueWords } from './value-words.ts';
import { whyNot, type WhyNot, type WhyNotQuestion } from './why-not.ts';

/** A step with why it was taken. */
export interface ExplainedTransition extends Omit<StoredTransition, 'detail'> {
  readonly words: string;
  readonly operands: readonly Operand[];
}

/** Why an alert is what it is. */
export interface Explanation {
  readonly alert: StoredAlert;
  /** One sentence of the whole. */
  readonly summary: string;
  readonly transitions: readonly ExplainedTransition[];
  /** Who was told, and who was not and why. */
  readonly told: readonly string[];
}

/** Says of alerts why they did what they did; all of it comes from what is stored. */
export class Explanations {
  readonly #database: TenantDatabase;

  constructor(database: TenantDatabase) {
    this.#database = database;
  }

  /** @throws {AlertNotFoundError} @throws {StoreUnavailableError} */
  explain(organizationId: number, alertId: string): Promise<Explanation> {
    return inOrganization(this.#database, organizationId, async (transaction) => {
      const alert = await getAlert(transaction, organizationId, alertId);
      const history = await readHistory(transaction, organizationId, alertId);
      const { rows } = await transaction.client.query<VersionRow>(
        `SELECT version, definition FROM alert_rule_version
         WHERE organization_id = $1 AND rule_id = $2 AND version = ANY($3::int4[])`,
        [organizationId, alert.ruleId, history.transitions.map(({ ruleVersion }) => ruleVersion)],
      );
      const timings = new Map(rows.map((row) => [row.version, timingOf(row.definition)]));
      const transitions = history.transitions.map((step) => explained(step, timings));
      return {
        alert,
        summary: summaryOf(alert, transitions),
        transitions,
        told: history.notifications.map(toldWords),
      };
    });
  }

  /**
   * Why a rule did not fire for a device. @throws {DeviceNotFoundError} @throws {StoreUnavailableError}
   */
  whyNot(asked: WhyNotQuestion): Promise<WhyNot> {
    return whyNot(this.#database, asked);
  }
}

interface VersionRow {
  version: number;
  definition: RuleJson;
}

type Timing = ReturnType<typeof timingOf>;

function timingOf(stored: RuleJson) {
  const { forMicros, keepFiringForMicros } = readStored(stored, 'enabled');
  return { forMicros, keepFiringForMicros };
}

function explained(
  { detail: json, ...step }: StoredTransition,
  timings: ReadonlyMap<number, Timing>,
): ExplainedTransition {
  const detail = readDetail(json);
  const timing = timings.get(step.ruleVersion) ?? null;
  return { ...step, operands: detail.operands, words: stepWords({ ...step, detail, timing }) };
}

function summaryOf(
  { rule, device, groupKey, state, severity, firedMicros, resolvedMicros }: StoredAlert,
  transitions: readonly ExplainedTransition[],
): string {
  const group = groupKey === '' ? '' : `, for ${valueWords(groupKey)}`;
  const name = `Rule "${rule}" on device ${device ?? 'that is being deleted'}${group}`;
  const last = transitions.at(-1);
  if (last === undefined) return `${name} is ${state}; its steps are too old and were deleted.`;
  if (firedMicros === null) {
    const outcome = state === 'pending' ? 'has not fired yet' : 'did not fire';
    return `${name} ${outcome}. Last step: ${last.words}`;
  }
  const fired = `fired as ${severity} at ${timeWords(firedMicros)}`;
  const end =
    resolvedMicros === null ? 'and is firing' : `and was resolved at ${timeWords(resolvedMicros)}`;
  return `${name} ${fired} ${end}. Last step: ${last.words}`;
}

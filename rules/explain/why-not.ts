import type { TenantDatabase } from '../../drizzle/transaction.ts';
import { DeviceNotFoundError } from '../../errors.ts';
import { INACTIVE, type AlertState } from '../alert/alert.ts';
import { fleetTagsOf } from '../backtest/fleet-tags.ts';
import { replayOne } from '../backtest/replay-one.ts';
import { readScope, type ScopeDevice } from '../backtest/scope-devices.ts';
import type { CompiledRule, EvaluationContext, Operand } from '../compiled-rule.ts';
import { formatDuration } from '../../duration.ts';
import type { StoredRule } from '../rule-row.ts';
import { lastAlertWords, readLastAlert, wasFiring } from './last-alert.ts';
import { operandWords } from './step-words.ts';
import { timeWords } from './value-words.ts';

/** Why a rule did not fire for a device. */
export interface WhyNot {
  /** At that time, as its history has it. */
  readonly state: AlertState['phase'];
  /** Each thing that kept it from firing, or did not; the weightiest first. */
  readonly reasons: readonly string[];
  /** What its condition looked at last. */
  readonly operands: readonly Operand[];
  /** Readings that were looked at again. */
  readonly readings: number;
}

/** Which rule, for which device, and when. */
export interface WhyNotQuestion {
  readonly organizationId: number;
  readonly stored: StoredRule;
  readonly rule: CompiledRule;
  /** Slug. */
  readonly device: string;
  readonly atMicros: number;
}

/** How far back is looked, beyond what windows and timers need: one that is pending began so long before. */
const BEFORE_MICROS = 3_600_000_000;

/**
 * Evaluates a rule once more over the history of a device up to a time, and says what it came to.
 * @throws {DeviceNotFoundError} @throws {StoreUnavailableError}
 */
export async function whyNot(database: TenantDatabase, asked: WhyNotQuestion): Promise<WhyNot> {
  const { organizationId, rule, atMicros } = asked;
  const [device] = await readScope(database, organizationId, { devices: [asked.device] });
  if (device === undefined) throw new DeviceNotFoundError(asked.device);
  const scoped = await readScope(database, organizationId, rule.definition.scope);
  const isInScope = scoped.some(({ deviceId }) => deviceId === device.deviceId);
  const { forMicros, keepFiringForMicros } = rule.definition;
  const backMicros = BEFORE_MICROS + 2 * forMicros + keepFiringForMicros + rule.historyMicros;
  const watched = new WatchedRule(rule);
  const { open, readings } = await replayOne(database, {
    device,
    rule: watched.rule,
    fromMicros: atMicros - backMicros,
    // What came at that very time counts.
    toMicros: atMicros + 1,
  });
  const state = open[0]?.state ?? INACTIVE;
  const operands = watched.operands();
  const of = { organizationId, ruleId: rule.ruleId, deviceId: device.deviceId, atMicros };
  const last = await readLastAlert(database, of);
  const reasons = [
    ...standingReasons(asked.stored, { device, isInScope }),
    ...(operands === null
      ? [nothingWords(backMicros)]
      : stateReasons(state, { operands, atMicros, forMicros })),
    ...(fleetTagsOf(rule).length === 0 ? [] : [FLEET_WORDS]),
    ...(last === null ? [] : [lastAlertWords(last, atMicros)]),
  ];
  // Of an alert that began before what was looked at, the record knows.
  const isFiring = operands === null && last !== null && wasFiring(last, atMicros);
  return {
    state: isFiring ? 'firing' : state.phase,
    reasons,
    operands: operands ?? [],
    readings,
  };
}

const FLEET_WORDS =
  'What other devices sent is not looked at again here, so comparisons with them do not hold.';

function nothingWords(backMicros: number): string {
  const back = formatDuration(backMicros);
  return `The device has sent nothing that the rule looks at for ${back}. What it sent before is not looked at here, and still holds.`;
}

/** A rule that remembers what it was evaluated with last. */
class WatchedRule {
  readonly rule: CompiledRule;
  #last: EvaluationContext | null = null;

  constructor(rule: CompiledRule) {
    this.rule = {
      ...rule,
      createMemory: () => rule.createMemory(),
      evaluate: (context) => {
        this.#last = context;
        return rule.evaluate(context);
      },
      operands: (context) => rule.operands(context),
    };
  }

  /** What its condition looked at last; null: it was not evaluated. */
  operands(): Operand[] | null {
    return this.#last === null ? null : this.rule.operands(this.#last);
  }
}

function standingReasons(
  { mode, suspendedReason, updatedAt }: StoredRule,
  { device, isInScope }: { readonly device: ScopeDevice; readonly isInScope: boolean },
): string[] {
  const reasons: string[] = [];
  if (mode === 'disabled') reasons.push(`The rule is disabled, since ${updatedAt.toISOString()}.`);
  if (mode === 'shadow')
    reasons.push('The rule is in mode "shadow": its alerts are recorded, and nobody is told.');
  if (suspendedReason !== null) reasons.push(`The rule is suspended: ${suspendedReason}.`);
  if (!isInScope) reasons.push(`The device ${device.slug} is not in the scope of the rule.`);
  return reasons;
}

function stateReasons(
  state: AlertState,
  at: {
    readonly operands: readonly Operand[];
    readonly atMicros: number;
    readonly forMicros: number;
  },
): string[] {
  const looked = at.operands.map((operand) => `${operandWords(operand)}.`);
  if (state.phase === 'firing') return ['It was firing at that time.', ...looked];
  if (state.phase === 'pending') {
    const since = state.activeAt ?? at.atMicros;
    const left = Math.max(at.forMicros - (at.atMicros - since), 0);
    return [
      `It was pending since ${timeWords(since)}; "for" is ${formatDuration(at.forMicros)}, ${formatDuration(left)} were left.`,
      ...looked,
    ];
  }
  const missing = at.operands.filter(({ value }) => value === null).map(({ name }) => name);
  return [
    'Its condition did not hold.',
    ...(missing.length === 0 ? [] : [`There was no value of ${missing.join(', ')}.`]),
    ...looked,
  ];
}

import type { Database } from '../../drizzle/database.ts';
import { reasonOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { CompiledRule } from '../compiled-rule.ts';
import type { LateReading } from '../evaluation/device-evaluation.ts';
import {
  recordedTransitions,
  recordHistorical,
  type RecordedTransition,
} from '../log/historical.ts';
import { LateRanges, type LateRange } from '../log/late-ranges.ts';
import { isInScope } from '../evaluation/rule-index.ts';
import type { Transition } from '../alert/transition.ts';
import { replayOne } from './replay-one.ts';
import { readScopeById, type ScopeDevice } from './scope-devices.ts';

/** What {@link ReEvaluation} needs. */
export interface ReEvaluationDeps {
  readonly database: Database;
  /** Rules of an organization that are evaluated now. */
  readonly rulesOf: (organizationId: number) => readonly CompiledRule[];
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly log: Logger;
}

/** How often due ranges are looked for. */
const LOOK_MS = 1000;
/** Alerts that began so long before a range are looked at too. */
const BEFORE_MICROS = 3_600_000_000;
/** Attempts to evaluate a range while the database is away. */
const ATTEMPTS_MAX = 10;

/**
 * Evaluates rules with `late: re-evaluate` once more where readings came late: over the history that is
 * stored by then, with the code of a backtest. An alert that comes out of it and was not recorded live, or
 * was recorded with other times, is recorded as historical: it corrects the history, and nobody is told.
 * One range at a time, behind everything else.
 */
export class ReEvaluation {
  readonly #deps: ReEvaluationDeps;
  readonly #ranges: LateRanges;
  #timer: NodeJS.Timeout | undefined;
  #underWay: Promise<void> | null = null;
  #isStopped = false;
  #recordedAlerts = 0;

  constructor(deps: ReEvaluationDeps) {
    this.#deps = deps;
    this.#ranges = new LateRanges(() => performance.now());
  }

  /** Devices whose late readings wait to be looked at. */
  get waitingDevices(): number {
    return this.#ranges.size;
  }

  /** Late readings that were left out because too many devices had some. */
  get droppedReadings(): number {
    return this.#ranges.dropped;
  }

  /** Historical alerts that were recorded. */
  get recordedAlerts(): number {
    return this.#recordedAlerts;
  }

  /** Notes a late reading. Hot path. */
  note(late: LateReading): void {
    this.#ranges.note(late);
  }

  /** Forgets a device that was deleted. */
  forget(deviceId: number): void {
    this.#ranges.forget(deviceId);
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.#underWay ??= this.#look().finally(() => {
        this.#underWay = null;
      });
    }, LOOK_MS);
  }

  /** Ends the one under way with its device. What waits is given up. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearInterval(this.#timer);
    await this.#underWay;
  }

  async #look(): Promise<void> {
    for (let range = this.#ranges.takeDue(); range !== null; range = this.#ranges.takeDue()) {
      if (this.#isStopped) return;
      await this.#tryRange(range);
    }
  }

  async #tryRange(range: LateRange): Promise<void> {
    for (let attempt = 1; attempt <= ATTEMPTS_MAX && !this.#isStopped; attempt += 1) {
      try {
        await this.#evaluate(range);
        return;
      } catch (err) {
        const isLast = attempt === ATTEMPTS_MAX;
        const outcome = isLast ? 'late readings not re-evaluated' : 'late readings wait';
        this.#deps.log.warn({ err: reasonOf(err), deviceId: range.deviceId }, outcome);
        if (!isLast) await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      }
    }
  }

  async #evaluate(range: LateRange): Promise<void> {
    const { database, rulesOf } = this.#deps;
    const { organizationId, deviceId } = range;
    const device = await readScopeById(database, organizationId, deviceId);
    if (device === null) return;
    const concerned = rulesOf(organizationId).filter(
      ({ definition, metrics }) =>
        definition.late === 're-evaluate' &&
        metrics.some((metric) => range.metrics.has(metric)) &&
        isInScope(definition.scope, device),
    );
    for (const rule of concerned) await this.#evaluateRule(rule, device, range);
  }

  async #evaluateRule(rule: CompiledRule, device: ScopeDevice, range: LateRange): Promise<void> {
    const { database, now } = this.#deps;
    const { forMicros, keepFiringForMicros } = rule.definition;
    const timersMicros = forMicros + keepFiringForMicros + rule.historyMicros;
    const fromMicros = range.fromMicros - BEFORE_MICROS - timersMicros;
    const toMicros = Math.min(range.toMicros + BEFORE_MICROS + timersMicros, now() * 1000);
    const { transitions } = await replayOne(database, { device, rule, fromMicros, toMicros });
    const of = {
      organizationId: range.organizationId,
      ruleId: rule.ruleId,
      deviceId: device.deviceId,
    };
    const recorded = await recordedTransitions(database.pool, of, fromMicros, toMicros);
    const missing = unrecordedAlerts(transitions, recorded).filter((alert) =>
      touches(alert, range.fromMicros, range.toMicros + timersMicros),
    );
    if (missing.length === 0) return;
    await recordHistorical(database.pool, missing.flat());
    this.#recordedAlerts += missing.length;
  }
}

/** Alerts that fired, each with its transitions, and that nothing of the record is like. */
export function unrecordedAlerts(
  transitions: readonly Transition[],
  recorded: readonly RecordedTransition[],
): Transition[][] {
  const live = new Set([...byAlert(recorded).values()].map(timesOf));
  return [...byAlert(transitions).values()].filter(
    (steps) => steps.some(({ to }) => to === 'firing') && !live.has(timesOf(steps)),
  );
}

type Step = Pick<RecordedTransition, 'alertId' | 'groupKey' | 'atMicros' | 'from' | 'to'>;

function byAlert<Each extends Step>(steps: readonly Each[]): Map<string, Each[]> {
  const alerts = new Map<string, Each[]>();
  for (const step of steps) {
    const known = alerts.get(step.alertId);
    if (known === undefined) alerts.set(step.alertId, [step]);
    else known.push(step);
  }
  return alerts;
}

/** When an alert fired and when it ended, as a text that two of them can be compared by. */
function timesOf(steps: readonly Step[]): string {
  const fired = steps.find(({ from, to }) => from !== 'firing' && to === 'firing');
  const ended = steps.find(({ from, to }) => from === 'firing' && to === 'inactive');
  return [steps[0]?.groupKey, fired?.atMicros, ended?.atMicros].join('/');
}

function touches(steps: readonly Step[], fromMicros: number, toMicros: number): boolean {
  const first = steps[0]?.atMicros ?? Infinity;
  const last = steps.at(-1);
  const endMicros = last?.to === 'inactive' ? last.atMicros : Infinity;
  return first <= toMicros && endMicros >= fromMicros;
}

import type { CompiledRule } from '../compiled-rule.ts';
import type { Severity } from '../severity.ts';
import type { BacktestOutcome } from './backtest.ts';
import { differenceOf, type BacktestAlert, type Tally } from './tally.ts';

/** An alert of a backtest, with the name of its device. Times in microseconds since 1970. */
export interface NamedAlert {
  readonly device: string;
  readonly groupKey: string;
  readonly severity: Severity;
  readonly activeMicros: number;
  readonly firedMicros: number;
  /** Null: it was still firing at the end. */
  readonly resolvedMicros: number | null;
}

/** What a version of a rule would have done. */
export interface BacktestFigures {
  /** 0: the draft. */
  readonly version: number;
  readonly transitions: number;
  readonly fired: number;
  readonly resolved: number;
  readonly minutesInAlarm: number;
  /** Fired, got worse or better, and resolved: what each receiver would have been told. */
  readonly notifications: number;
  readonly notificationsPerDay: number;
  /** Of the worst day, in UTC. */
  readonly notificationsOfWorstDay: number;
}

/** What came of a backtest, for people. */
export interface BacktestResult {
  readonly devices: number;
  readonly readings: number;
  readonly durationMs: number;
  readonly asked: BacktestFigures;
  /** The first 1 000. */
  readonly alerts: readonly NamedAlert[];
  /** Null when there is no other version to compare with. */
  readonly comparison: {
    readonly inForce: BacktestFigures;
    readonly both: number;
    readonly onlyAsked: number;
    readonly onlyInForce: number;
    /** The first 100 of each. */
    readonly examplesOfAsked: readonly NamedAlert[];
    readonly examplesOfInForce: readonly NamedAlert[];
  } | null;
}

const ALERTS_SHOWN = 1000;
const EXAMPLES_SHOWN = 100;
const MINUTE_MICROS = 60_000_000;
const DAY_MICROS = 86_400_000_000;

/** What was asked, and how long it took. */
export interface BacktestFrame {
  readonly rules: readonly CompiledRule[];
  readonly fromMicros: number;
  readonly toMicros: number;
  readonly durationMs: number;
}

/** Puts the outcome of a backtest into figures. */
export function outcomeOf(outcome: BacktestOutcome, frame: BacktestFrame): BacktestResult {
  const { devices, readings, tallies } = outcome;
  const { durationMs, rules } = frame;
  const [asked, inForce] = tallies;
  if (asked === undefined) throw new Error('a backtest without a rule');
  const names = new Map(devices.map(({ deviceId, slug }) => [deviceId, slug]));
  const named = (alerts: readonly BacktestAlert[], max: number): NamedAlert[] =>
    alerts.slice(0, max).map(({ alertId: _id, deviceId, ...alert }) => ({
      ...alert,
      device: names.get(deviceId) ?? '',
    }));
  const figures = (tally: Tally, index: number): BacktestFigures =>
    figuresOf(tally, rules[index]?.version ?? 0, frame);
  return {
    devices: devices.length,
    readings,
    durationMs,
    asked: figures(asked, 0),
    alerts: named(asked.alerts, ALERTS_SHOWN),
    comparison: inForce === undefined ? null : compare(asked, inForce),
  };

  function compare(ours: Tally, others: Tally): BacktestResult['comparison'] {
    const { both, onlyThis, onlyOther } = differenceOf(ours.alerts, others.alerts);
    return {
      inForce: figures(others, 1),
      both,
      onlyAsked: onlyThis.length,
      onlyInForce: onlyOther.length,
      examplesOfAsked: named(onlyThis, EXAMPLES_SHOWN),
      examplesOfInForce: named(onlyOther, EXAMPLES_SHOWN),
    };
  }
}

function figuresOf(
  tally: Tally,
  version: number,
  { fromMicros, toMicros }: BacktestFrame,
): BacktestFigures {
  const { notificationCount } = tally;
  return {
    version,
    transitions: tally.transitionCount,
    fired: tally.firedCount,
    resolved: tally.resolvedCount,
    minutesInAlarm: tally.alarmMicros / MINUTE_MICROS,
    notifications: notificationCount,
    notificationsPerDay: notificationCount / ((toMicros - fromMicros) / DAY_MICROS),
    notificationsOfWorstDay: Math.max(0, ...tally.notificationsByDay.values()),
  };
}

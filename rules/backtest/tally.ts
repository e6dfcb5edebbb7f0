import { severityOf, levelOf, type Severity } from '../severity.ts';
import type { Transition } from '../alert/transition.ts';

/** An alert of a backtest: from when it fired to its end. */
export interface BacktestAlert {
  readonly alertId: string;
  readonly deviceId: number;
  readonly groupKey: string;
  /** The worst that it was. */
  severity: Severity;
  readonly activeMicros: number;
  readonly firedMicros: number;
  /** Null when it was still firing at the end. */
  resolvedMicros: number | null;
}

/** Alerts whose times are kept, for the comparison with another version; more are only counted. */
export const ALERTS_MAX = 50_000;
/** Transitions that are kept as they are. */
export const TRANSITIONS_MAX = 1000;

const DAY_MICROS = 86_400_000_000;

/** Adds up what a rule would have done from one time to another. */
export class Tally {
  transitionCount = 0;
  firedCount = 0;
  resolvedCount = 0;
  /** Fired, got worse or better, and ended: each would have been told once to each receiver. */
  notificationCount = 0;
  alarmMicros = 0;
  readonly alerts: BacktestAlert[] = [];
  readonly transitions: Transition[] = [];
  readonly notificationsByDay = new Map<number, number>();
  readonly #fromMicros: number;
  readonly #toMicros: number;
  readonly #firing = new Map<string, BacktestAlert>();

  constructor(fromMicros: number, toMicros: number) {
    this.#fromMicros = fromMicros;
    this.#toMicros = toMicros;
  }

  /** Takes a transition; those before the beginning only say what was firing by then. */
  add(transition: Transition): void {
    const { atMicros, from, to, reason } = transition;
    const isCounted = atMicros >= this.#fromMicros;
    if (isCounted) {
      this.transitionCount += 1;
      if (this.transitions.length < TRANSITIONS_MAX) this.transitions.push(transition);
    }
    if (to === 'firing' && from !== 'firing') this.#fired(transition, isCounted);
    else if (from === 'firing' && to === 'inactive') this.#resolved(transition, isCounted);
    else if (reason === 'severity_raised' || reason === 'severity_lowered') {
      this.#raise(transition);
      if (isCounted) this.#notified(atMicros);
    }
  }

  /** Ends the count: alerts that are firing were in alarm up to here. */
  end(): void {
    for (const alert of this.#firing.values()) {
      this.alarmMicros += this.#toMicros - Math.max(alert.firedMicros, this.#fromMicros);
    }
  }

  #fired({ alertId, deviceId, groupKey, severity, ...step }: Transition, isCounted: boolean): void {
    const alert: BacktestAlert = {
      alertId,
      deviceId,
      groupKey,
      severity,
      activeMicros: step.state.activeAt ?? step.atMicros,
      firedMicros: step.atMicros,
      resolvedMicros: null,
    };
    this.#firing.set(alertId, alert);
    if (this.alerts.length < ALERTS_MAX) this.alerts.push(alert);
    if (!isCounted) return;
    this.firedCount += 1;
    this.#notified(step.atMicros);
  }

  #resolved({ alertId, atMicros }: Transition, isCounted: boolean): void {
    const alert = this.#firing.get(alertId);
    this.#firing.delete(alertId);
    if (alert !== undefined) alert.resolvedMicros = atMicros;
    if (!isCounted) {
      const index = alert === undefined ? -1 : this.alerts.lastIndexOf(alert);
      if (index >= 0) this.alerts.splice(index, 1);
      return;
    }
    this.resolvedCount += 1;
    this.#notified(atMicros);
    if (alert !== undefined) {
      this.alarmMicros += atMicros - Math.max(alert.firedMicros, this.#fromMicros);
    }
  }

  #raise({ alertId, severity }: Transition): void {
    const alert = this.#firing.get(alertId);
    if (alert === undefined) return;
    const level = Math.max(levelOf(alert.severity), levelOf(severity));
    alert.severity = severityOf(level as 1);
  }

  #notified(atMicros: number): void {
    this.notificationCount += 1;
    const day = Math.floor(atMicros / DAY_MICROS);
    this.notificationsByDay.set(day, (this.notificationsByDay.get(day) ?? 0) + 1);
  }
}

/** What two versions of a rule have made of the same readings. */
export interface Difference {
  /** Alerts of both, that overlap in time on the same device and group. */
  readonly both: number;
  readonly onlyThis: readonly BacktestAlert[];
  readonly onlyOther: readonly BacktestAlert[];
}

/** Compares alerts by device, group key and overlap in time. */
export function differenceOf(
  ours: readonly BacktestAlert[],
  others: readonly BacktestAlert[],
): Difference {
  const met = new Set<BacktestAlert>();
  const bySubject = new Map<string, BacktestAlert[]>();
  for (const other of others) {
    const subject = subjectOf(other);
    const known = bySubject.get(subject);
    if (known === undefined) bySubject.set(subject, [other]);
    else known.push(other);
  }
  const onlyThis = ours.filter((alert) => {
    const overlapping = (bySubject.get(subjectOf(alert)) ?? []).filter((other) =>
      overlaps(alert, other),
    );
    for (const other of overlapping) met.add(other);
    return overlapping.length === 0;
  });
  const onlyOther = others.filter((other) => !met.has(other));
  return { both: ours.length - onlyThis.length, onlyThis, onlyOther };
}

function subjectOf({ deviceId, groupKey }: BacktestAlert): string {
  return `${deviceId}/${groupKey}`;
}

function overlaps(a: BacktestAlert, b: BacktestAlert): boolean {
  const endA = a.resolvedMicros ?? Infinity;
  const endB = b.resolvedMicros ?? Infinity;
  return a.firedMicros <= endB && b.firedMicros <= endA;
}

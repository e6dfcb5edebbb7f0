import type { AlertPhase } from '../alert/alert.ts';
import { storable } from '../storable.ts';
import { SEVERITIES, type Severity } from '../severity.ts';
import type { Transition } from '../alert/transition.ts';

/** An alert as it stands in the database. */
export interface StoredAlert {
  readonly alertId: string;
  readonly ruleId: number;
  readonly deviceId: number;
  readonly groupKey: string;
  readonly state: 'pending' | 'firing' | 'resolved' | 'inactive';
  readonly severity: Severity;
  readonly sequence: number;
  readonly occurrences: number;
  /** Event times. */
  readonly activeMicros: number;
  readonly firedMicros: number | null;
  readonly changedMicros: number;
  readonly isShadow: boolean;
  readonly isHistorical: boolean;
}

/** An alert as it is to stand in the database. */
export interface PlannedAlert {
  /** The last transition of it that is recorded. */
  last: Transition;
  state: StoredAlert['state'];
  severity: Severity;
  sequence: number;
  occurrences: number;
  activeMicros: number;
  firedMicros: number | null;
  changedMicros: number;
  /** The transition whose value it shows; null: the one it shows stays. */
  valueOf: Transition | null;
  isShadow: boolean;
  readonly isHistorical: boolean;
  readonly isNew: boolean;
}

/** A transition that is to be recorded. */
export interface PlannedTransition {
  readonly transition: Transition;
  /** The id that it was evaluated under, when another program's alert is open in its place. */
  readonly adoptedFrom: string | undefined;
  /** Whether nobody is to be told of it. */
  readonly isSilent: boolean;
}

/** What a batch comes to. */
export interface AlertPlan {
  readonly alerts: readonly PlannedAlert[];
  readonly transitions: readonly PlannedTransition[];
  /** Transitions of devices that were deleted. */
  readonly orphans: number;
  /** Transitions that are recorded already, or say nothing that is not. */
  readonly duplicates: number;
  /** Devices of which another program has recorded something else: to be loaded again. */
  readonly divergedDevices: ReadonlySet<number>;
  /** Ids that another program's open alerts stand for. */
  readonly adopted: ReadonlySet<string>;
}

/** What {@link planAlerts} goes by. */
export interface AlertPlanInput {
  readonly transitions: readonly Transition[];
  /** Every stored alert with an id of these transitions, and every open one with a key of them. */
  readonly stored: readonly StoredAlert[];
  /** Whether a device exists, in that organization. */
  readonly hasDevice: (deviceId: number, organizationId: number) => boolean;
  /** `adopted` of the plans before. */
  readonly adopted: ReadonlySet<string>;
}

/**
 * Decides what of a batch of transitions is to be written. Pure.
 *
 * A transition that is on record is left out, so that writing twice is harmless. An alert that another
 * program has ended stays ended: what this one goes on to say of it is left out. Where
 * another program has an alert of the same rule, device and group key open, the steps are added to that
 * one, as far as they are news to it. In all these cases the device is told of in `divergedDevices`.
 */
export function planAlerts(input: AlertPlanInput): AlertPlan {
  return new Planning(input).run();
}

type Working = PlannedAlert & { alertId: string; isTouched: boolean };

class Planning {
  readonly #input: AlertPlanInput;
  readonly #byId = new Map<string, Working>();
  /** Open ones. */
  readonly #byKey = new Map<string, Working>();
  readonly #transitions: PlannedTransition[] = [];
  readonly #adopted = new Set<string>();
  readonly #divergedDevices = new Set<number>();
  #orphans = 0;
  #duplicates = 0;

  constructor(input: AlertPlanInput) {
    this.#input = input;
    for (const stored of input.stored) {
      const alert = { ...stored, last: null as never, valueOf: null };
      this.#keep(keyOf(stored), { ...alert, isNew: false, isTouched: false });
    }
  }

  run(): AlertPlan {
    for (const transition of this.#input.transitions) this.#take(transition);
    return {
      alerts: [...this.#byId.values()].filter(({ isTouched }) => isTouched),
      transitions: this.#transitions,
      orphans: this.#orphans,
      duplicates: this.#duplicates,
      divergedDevices: this.#divergedDevices,
      adopted: this.#adopted,
    };
  }

  #take(transition: Transition): void {
    if (!this.#input.hasDevice(transition.deviceId, transition.organizationId)) {
      this.#orphans += 1;
      return;
    }
    const alert = this.#byId.get(transition.alertId);
    if (alert !== undefined) {
      if (!isNews(alert, transition)) this.#leaveOut(transition, !isSame(alert, transition));
      else this.#record(alert, transition);
      return;
    }
    const open = transition.isHistorical ? undefined : this.#byKey.get(keyOf(transition));
    if (open !== undefined) this.#adopt(open, transition);
    else if (this.#isAdopted(transition.alertId)) this.#leaveOut(transition, true);
    else this.#begin(transition);
  }

  #isAdopted(alertId: string): boolean {
    return this.#adopted.has(alertId) || this.#input.adopted.has(alertId);
  }

  #leaveOut({ deviceId }: Transition, isDiverged: boolean): void {
    this.#duplicates += 1;
    if (isDiverged) this.#divergedDevices.add(deviceId);
  }

  #begin(transition: Transition): void {
    const alert: Working = {
      alertId: transition.alertId,
      last: transition,
      state: 'pending',
      severity: transition.severity,
      sequence: transition.sequence,
      occurrences: transition.occurrences,
      activeMicros: transition.state.activeAt ?? transition.atMicros,
      firedMicros: null,
      changedMicros: transition.atMicros,
      valueOf: transition,
      isShadow: transition.isShadow,
      isHistorical: transition.isHistorical,
      isNew: true,
      isTouched: true,
    };
    this.#byId.set(alert.alertId, alert);
    this.#record(alert, transition);
  }

  #adopt(open: Working, transition: Transition): void {
    this.#adopted.add(transition.alertId);
    this.#divergedDevices.add(transition.deviceId);
    if (transition.atMicros < open.changedMicros || saysNothing(open, transition)) {
      this.#duplicates += 1;
      return;
    }
    const { state } = transition;
    const adopted = {
      ...transition,
      alertId: open.alertId,
      sequence: open.sequence + 1,
      from: open.state as AlertPhase,
      state: state.phase === 'inactive' ? state : { ...state, activeAt: open.activeMicros },
    };
    this.#record(open, adopted, transition.alertId);
  }

  #record(alert: Working, transition: Transition, adoptedFrom?: string): void {
    const { atMicros, from, to } = transition;
    alert.last = transition;
    alert.isTouched = true;
    alert.sequence = transition.sequence;
    alert.severity = transition.severity;
    alert.occurrences = transition.occurrences;
    alert.changedMicros = atMicros;
    if (to === 'inactive') {
      alert.state = from === 'firing' ? 'resolved' : 'inactive';
      if (!alert.isHistorical) this.#byKey.delete(keyOf(transition));
    } else {
      alert.state = to;
      // Nobody is told of the end of what nobody was told of.
      alert.isShadow = transition.isShadow;
      if (from !== 'firing') alert.valueOf = transition;
      if (to === 'firing') alert.firedMicros ??= transition.state.firedAt ?? atMicros;
      this.#keep(keyOf(transition), alert);
    }
    const isSilent = alert.isShadow || alert.isHistorical;
    this.#transitions.push({ transition, adoptedFrom, isSilent });
  }

  #keep(key: string, alert: Working): void {
    this.#byId.set(alert.alertId, alert);
    if (isOpen(alert) && !alert.isHistorical) this.#byKey.set(key, alert);
  }
}

function isOpen({ state }: { readonly state: StoredAlert['state'] }): boolean {
  return state === 'pending' || state === 'firing';
}

/** An alert that ends at the very time at which it began may begin again under its id. */
function isNews(alert: PlannedAlert, { sequence, from }: Transition): boolean {
  return sequence > alert.sequence && (isOpen(alert) || from === 'inactive');
}

/** Whether a transition that is not news is one that is on record, as far as that can be told. */
function isSame(alert: PlannedAlert, { sequence, to, atMicros }: Transition): boolean {
  if (sequence !== alert.sequence) return sequence < alert.sequence;
  const phase = isOpen(alert) ? alert.state : 'inactive';
  return phase === to && alert.changedMicros === atMicros;
}

/** Whether a step of one's own alert is none for the alert of another program. */
function saysNothing(open: PlannedAlert, { to, severity, reason }: Transition): boolean {
  if (to === 'inactive') return false;
  if (to === 'pending') return true;
  return open.state === 'firing' && open.severity === severity && reason !== 'fired_again';
}

function keyOf(of: {
  readonly ruleId: number;
  readonly deviceId: number;
  readonly groupKey: string;
}): string {
  return `${of.ruleId} ${of.deviceId} ${storable(of.groupKey)}`;
}

/** A severity as a row has it; `info` of anything that is none. */
export function severityOfText(text: string): Severity {
  return SEVERITIES.find((severity) => severity === text) ?? 'info';
}

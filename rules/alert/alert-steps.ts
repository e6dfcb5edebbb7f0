// HOT PATH: AlertTrack.step once for each evaluation
import {
  deadlineOf,
  INACTIVE,
  stepAlert,
  takeTimer,
  type AlertPhase,
  type AlertState,
} from './alert.ts';
import { alertIdOf } from './alert-id.ts';
import { isSameState, isSeen, reasonOf } from './alert-reason.ts';
import { annotationsOf, sightOf, type Sight } from './alert-sight.ts';
import type { CompiledRule, EvaluationContext } from '../compiled-rule.ts';
import type { OpenAlert, RuleDevice } from '../evaluation/device-load.ts';
import { severityOf, type Level } from '../severity.ts';
import type { Transition, TransitionReason } from './transition.ts';

/** What a track needs beside its rule and device. */
export interface TrackOptions {
  readonly groupKey: string;
  /** What the rule is evaluated with; looked at for the operands of each transition. */
  readonly context: EvaluationContext;
  /** The alert to go on with, as it was recorded; null: there is none. */
  readonly open: OpenAlert | null;
}

/**
 * What does not change for people is recorded once it has lasted so long, so that a value that flaps
 * faster costs nothing: that an alert is pending, that its condition does not hold, that another level
 * does. Event time, microseconds. A crash loses no more than that of it, and readings of so long are
 * evaluated again after one.
 */
export const SETTLE_MICROS = 1_000_000;

const NO_TRANSITIONS: readonly Transition[] = [];

/** A step that is not recorded yet. */
interface Draft extends Sight {
  readonly from: AlertPhase;
  readonly reason: TransitionReason;
  readonly atMicros: number;
}

/**
 * The alert of one rule, device and group key, one after the other: at most one is open. Makes
 * {@link Transition}s of its steps, numbered from 0 for each alert; a pending one is recorded late, see
 * {@link SETTLE_MICROS}, and one that was dropped before then never was. Synchronous, and never throws
 * where the rule does not.
 */
export class AlertTrack {
  readonly #rule: CompiledRule;
  readonly #device: RuleDevice;
  readonly #context: EvaluationContext;
  readonly #groupKey: string;
  #state: AlertState = INACTIVE;
  /** As the last transition has it. */
  #recorded: AlertState = INACTIVE;
  #draft: Draft | null = null;
  #deadline = Infinity;
  /** Of the open alert, or of the last one; empty until it is asked for. */
  #alertId = '';
  #activeAt = NaN;
  #changedMicros = -Infinity;
  /** Of the last transition; -1 before the first. */
  #sequence = -1;
  #occurrences = 0;
  /** Steps up to here were taken before the alert was recorded: they come again after a crash. */
  #takenMicros = -Infinity;
  /** Time has gone on since the last alert became active. */
  #isSpent = false;

  constructor(rule: CompiledRule, device: RuleDevice, { groupKey, context, open }: TrackOptions) {
    this.#rule = rule;
    this.#device = device;
    this.#context = context;
    this.#groupKey = groupKey;
    if (open === null || open.state.activeAt === null) return;
    this.#state = open.state;
    this.#alertId = open.alertId;
    this.#activeAt = open.state.activeAt;
    this.#sequence = open.sequence;
    this.#occurrences = open.occurrences;
    if (open.sequence < 0) {
      this.#draft = this.#draftOf(
        'inactive',
        reasonOf(rule, context, INACTIVE, open.state),
        this.#activeAt,
      );
    } else {
      this.#recorded = open.state;
      this.#changedMicros = open.changedMicros;
      this.#takenMicros = open.changedMicros;
    }
    this.#planDeadline();
  }

  get groupKey(): string {
    return this.#groupKey;
  }

  get state(): AlertState {
    return this.#state;
  }

  /**
   * Whether it can be forgotten: no alert is open, and none that is to come can have the id of the last
   * one, which is made of the time at which it became active.
   */
  get isIdle(): boolean {
    return this.#state.phase === 'inactive' && (this.#sequence < 0 || this.#isSpent);
  }

  /** When {@link takeTimer} is to be called, in event time; Infinity: not at all. */
  get deadline(): number {
    return this.#deadline;
  }

  /**
   * The alert that is open, as a track of another version of the rule can go on with it; null: none is.
   * Its `sequence` is -1 while nothing of it is recorded.
   */
  get open(): OpenAlert | null {
    if (this.#state.phase === 'inactive') return null;
    const rule = this.#rule;
    const device = this.#device;
    return {
      alertId: this.#idOfAlert(),
      ruleId: rule.ruleId,
      ruleVersion: rule.version,
      deviceId: device.deviceId,
      groupKey: this.#groupKey,
      state: this.#state,
      sequence: this.#sequence,
      occurrences: this.#occurrences,
      changedMicros: this.#changedMicros,
    };
  }

  /**
   * An evaluation, and before it all timers that were due before its time. Hot path. Nothing happens up to
   * the time of the last transition of a restored alert: that evaluation is in its state already.
   * @returns what is to be recorded, in order; the same empty array when that is nothing.
   */
  step(level: Level, timeMicros: number): readonly Transition[] {
    if (timeMicros <= this.#takenMicros) return NO_TRANSITIONS;
    const timed = this.#deadline < timeMicros ? this.#takeTimers(timeMicros, false) : null;
    const next = stepAlert(this.#rule.definition, this.#state, level, timeMicros);
    if (next === this.#state) {
      if (next === INACTIVE && timeMicros > this.#activeAt) this.#isSpent = true;
      return timed ?? NO_TRANSITIONS;
    }
    const made = timed ?? [];
    this.#advance(next, timeMicros, made);
    return made.length === 0 ? NO_TRANSITIONS : made;
  }

  /** Takes all timers that are due at or before a time: the last evaluation has held until then. */
  takeTimer(timeMicros: number): readonly Transition[] {
    return this.#deadline <= timeMicros ? this.#takeTimers(timeMicros, true) : NO_TRANSITIONS;
  }

  /** Ends the open alert for a reason that is not its condition. Nothing when none is recorded. */
  end(reason: TransitionReason, timeMicros: number): readonly Transition[] {
    const { phase } = this.#state;
    const { level } = this.#recorded;
    const isRecorded = this.#recorded.phase !== 'inactive';
    this.#draft = null;
    this.#state = INACTIVE;
    this.#planDeadline();
    if (!isRecorded) return NO_TRANSITIONS;
    return [this.#record(this.#draftOf(phase, reason, timeMicros), level)];
  }

  #takeTimers(timeMicros: number, isInclusive: boolean): Transition[] {
    const made: Transition[] = [];
    const timing = this.#rule.definition;
    while (isInclusive ? this.#deadline <= timeMicros : this.#deadline < timeMicros) {
      const dueMicros = this.#deadline;
      const next = takeTimer(timing, this.#state, dueMicros);
      if (next === this.#state) {
        this.#flush(made);
        this.#planDeadline();
      } else {
        this.#advance(next, dueMicros, made);
      }
    }
    return made;
  }

  /** Goes on to another state, and records what of that is to be recorded now. */
  #advance(next: AlertState, timeMicros: number, made: Transition[]): void {
    const before = this.#state;
    if (before.phase === 'inactive') this.#beginAlert(next);
    const reason = reasonOf(this.#rule, this.#context, before, next);
    if (isSeen(before, next)) {
      const isUnrecorded = next.phase === 'inactive' && this.#recorded.phase === 'inactive';
      if (isUnrecorded) this.#draft = null;
      else this.#flush(made);
      this.#countFiring(before, next);
      this.#state = next;
      const level = next.phase === 'inactive' ? before.level : next.level;
      if (!isUnrecorded)
        made.push(this.#record(this.#draftOf(before.phase, reason, timeMicros), level));
    } else {
      this.#state = next;
      this.#plan(before, reason, timeMicros);
      if (this.#countFiring(before, next)) this.#flush(made);
    }
    this.#planDeadline();
  }

  /** Goes by what is recorded: what flaps faster is one occurrence, and the same behind a crash. */
  #countFiring(before: AlertState, next: AlertState): boolean {
    const hasFired = next.phase === 'firing' && before.phase !== 'firing';
    const hasFiredAgain =
      next.phase === 'firing' && next.clearSince === null && this.#recorded.clearSince !== null;
    if (hasFired || hasFiredAgain) this.#occurrences += 1;
    return hasFiredAgain;
  }

  #beginAlert(next: AlertState): void {
    // One that ended at the very time at which it became active has the same id: its numbers go on.
    if (next.activeAt === this.#activeAt) return;
    this.#activeAt = next.activeAt ?? NaN;
    this.#alertId = '';
    this.#sequence = -1;
    this.#occurrences = 0;
    this.#isSpent = false;
  }

  /** Notes what is to be recorded if it lasts. A pending alert stays noted as it began. */
  #plan(before: AlertState, reason: TransitionReason, timeMicros: number): void {
    if (this.#draft?.from === 'inactive') return;
    if (before.phase !== 'inactive' && isSameState(this.#recorded, this.#state)) {
      this.#draft = null;
      return;
    }
    this.#draft = this.#draftOf(before.phase, reason, timeMicros);
  }

  #flush(made: Transition[]): void {
    const draft = this.#draft;
    if (draft === null) return;
    this.#draft = null;
    made.push(this.#record(draft, this.#state.level));
  }

  #planDeadline(): void {
    const timer = deadlineOf(this.#rule.definition, this.#state) ?? Infinity;
    const settled = this.#draft === null ? Infinity : this.#draft.atMicros + SETTLE_MICROS;
    this.#deadline = Math.min(timer, settled);
  }

  #draftOf(from: AlertPhase, reason: TransitionReason, atMicros: number): Draft {
    return { from, reason, atMicros, ...sightOf(this.#rule, this.#context) };
  }

  #record(draft: Draft, level: Level): Transition {
    const rule = this.#rule;
    const device = this.#device;
    const { definition } = rule;
    const alertId = this.#idOfAlert();
    this.#sequence += 1;
    this.#recorded = this.#state;
    this.#changedMicros = Math.max(this.#changedMicros, draft.atMicros);
    this.#isSpent = this.#changedMicros > this.#activeAt;
    return {
      alertId,
      sequence: this.#sequence,
      organizationId: rule.organizationId,
      ruleId: rule.ruleId,
      ruleVersion: rule.version,
      deviceId: device.deviceId,
      groupKey: this.#groupKey,
      atMicros: this.#changedMicros,
      from: draft.from,
      to: this.#state.phase,
      severity: severityOf(level),
      reason: draft.reason,
      operands: draft.operands,
      value: draft.value,
      state: this.#state,
      occurrences: this.#occurrences,
      labels: definition.labels,
      annotations: annotationsOf({ rule, device, context: this.#context }, draft.value, level),
      isShadow: rule.mode === 'shadow',
      isHistorical: false,
    };
  }

  #idOfAlert(): string {
    this.#alertId ||= alertIdOf(
      this.#rule.ruleId,
      this.#device.deviceId,
      this.#groupKey,
      this.#activeAt,
    );
    return this.#alertId;
  }
}

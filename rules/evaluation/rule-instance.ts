// HOT PATH: bench/rules-evaluation.ts
import { AlertTrack } from '../alert/alert-steps.ts';
import type {
  CompiledRule,
  ConnectionState,
  EvaluationContext,
  EventInput,
  FleetValues,
  OperatorMemory,
  Series,
  Silence,
} from '../compiled-rule.ts';
import type { OpenAlert, RuleDevice } from './device-load.ts';
import type { PreparedRule } from './prepared-rule.ts';
import type { Level } from '../severity.ts';
import type { Transition, TransitionReason } from '../alert/transition.ts';

/** The device of an instance: what all its rules share. */
export interface InstanceDevice {
  readonly device: RuleDevice;
  readonly connection: ConnectionState;
  /** The event that is evaluated. */
  event: EventInput | null;
  readonly fleet: FleetValues;
  /** While true conditions are evaluated for what they remember, and alerts take no steps. */
  readonly isWarming: boolean;
  /** While true readings are evaluated again that were evaluated before the program ended. */
  readonly isCatchingUp: boolean;
  /** Up to when the steps of an instance are on record; -Infinity of most. */
  knownUntil(instance: RuleInstance): number;
  /** Told that what is evaluated from now on is not on record. */
  leaveKnown(instance: RuleInstance): void;
  /** Undefined while nobody has told; a rule that looks for silence has no verdict then. */
  silenceOf(ruleId: number): Silence | null | undefined;
  emit(transition: Transition): void;
  /** Told that a timer may be due at that time, in microseconds since 1970. */
  noteDeadline(atMicros: number): void;
  /** Told that a rule has thrown, which is a fault of ours. */
  failed(rule: CompiledRule, cause: unknown): void;
}

/** What readings, events and timers of a device are given to: a rule for the device, with or without groups. */
export interface RuleWatch {
  readonly prepared: PreparedRule;
  /** By index of {@link PreparedRule.metrics}. */
  readonly series: readonly Series[];
  /** Event time up to which it was evaluated; -Infinity before the first time. */
  timeMicros: number;
  /** Whether a sample that is under way has a reading for it. */
  isTouched: boolean;
  /** When a timer is due or the rule is to be looked at again; Infinity for never. */
  readonly deadlineMicros: number;
  /** Whether no alert is pending or firing. */
  readonly isIdle: boolean;
  /** The alerts that are pending or firing, and recorded. Allocates. */
  readonly openAlerts: readonly OpenAlert[];
  /** Evaluates; a time before that of the last evaluation counts as that. */
  evaluate(timeMicros: number): void;
  /** The same with the event that its device has at hand. */
  evaluateEvent(timeMicros: number): void;
  /** Takes timers and ticks that are due before `untilMicros`, in order. */
  takeTimers(untilMicros: number): void;
  /** Remembers what conditions were at the last ticks before `untilMicros`; to be called while warming. */
  recallTicks(untilMicros: number): void;
  /** Remembers what is known by an alert being open; to be called before history is fed in. */
  recall(open: OpenAlert): void;
  /** Goes on with an alert as it was. */
  restore(open: OpenAlert): void;
  /** The instance of a group key; made when it is not there. Null when there are too many. */
  instanceOf(groupKey: string): RuleInstance | null;
  /** Looks at ticks from about that time on only, and evaluates what no reading brings about. */
  begin(atMicros: number, connectionMicros: number): void;
  /** Ends the alerts that do not hold under this version of the rule. */
  confirm(atMicros: number): void;
  /** Ends what is open, or one alert of it. */
  end(reason: TransitionReason, atMicros: number, alertId?: string): void;
}

/**
 * Ticks and timers that one call of `takeTimers` takes; of a longer gap the rest is left out. At a tick a
 * minute that is ten weeks of silence.
 */
const TIMERS_MAX = 100_000;

/** Ticks that a device that was just loaded makes up for. */
const BEGIN_TICKS = 100;
/** Ticks that an instance that was just loaded remembers. */
const RECALLED_TICKS = 1000;

/**
 * A rule for one device and one group key: its conditions' context and its alert. Kept small, there are as
 * many as rules times devices: what is shared is asked of the device, and the alert is made when the
 * condition first holds.
 */
export class RuleInstance implements RuleWatch, EvaluationContext {
  readonly prepared: PreparedRule;
  readonly series: readonly Series[];
  readonly memory: readonly OperatorMemory[];
  timeMicros = -Infinity;
  isTouched = false;
  /** While true it is not looked at for ticks: its group key is not the device's at the moment. */
  isLeft = false;
  readonly #device: InstanceDevice;
  readonly #groupKey: string;
  #track: AlertTrack | null = null;

  constructor(
    prepared: PreparedRule,
    device: InstanceDevice,
    series: readonly Series[],
    groupKey = '',
  ) {
    this.prepared = prepared;
    this.series = series;
    this.memory = prepared.rule.createMemory();
    this.#device = device;
    this.#groupKey = groupKey;
  }

  get event(): EventInput | null {
    return this.#device.event;
  }

  get connection(): ConnectionState {
    return this.#device.connection;
  }

  get silence(): Silence | null {
    return this.#device.silenceOf(this.prepared.rule.ruleId) ?? null;
  }

  get fleet(): FleetValues {
    return this.#device.fleet;
  }

  /** Whether no alert is pending or firing. */
  get isIdle(): boolean {
    return this.#track?.isIdle ?? true;
  }

  get openAlerts(): readonly OpenAlert[] {
    const open = this.#track?.open ?? null;
    return open === null ? [] : [open];
  }

  get deadlineMicros(): number {
    return Math.min(this.#tickAt, this.#track?.deadline ?? Infinity);
  }

  evaluate(timeMicros: number): void {
    this.#evaluate(timeMicros, this.#isKnown(timeMicros));
  }

  #evaluate(timeMicros: number, isKnown: boolean): void {
    this.advance(timeMicros);
    if (this.#isVerdictOut) return;
    const level = this.#level();
    if (this.prepared.rule.tickMicros !== null) this.#device.noteDeadline(this.#tickAt);
    if (isKnown) {
      // It ended here: what holds later at the same time is another alert.
      const hasEnded = level === 0 && timeMicros === this.#device.knownUntil(this);
      if (hasEnded) this.#device.leaveKnown(this);
      return;
    }
    if (level === 0 && (this.#track === null || this.#staysFiring)) return;
    this.step(level);
  }

  evaluateEvent(timeMicros: number): void {
    this.evaluate(timeMicros);
  }

  /** Goes on as if the condition were of that level now. */
  step(level: Level): void {
    if (this.#device.isWarming) return;
    if (this.#track === null && level === 0) return;
    this.#track ??= this.#newTrack(null);
    try {
      this.#took(this.#track.step(level, this.timeMicros));
    } catch (cause) {
      this.#device.failed(this.prepared.rule, cause);
    }
    if (this.#track.isIdle) this.#track = null;
  }

  /** Its group key is no longer the device's: its condition counts as cleared, and remembers nothing. */
  leave(timeMicros: number): void {
    this.isLeft = true;
    for (const memory of this.memory) memory.reset();
    if (this.#isKnown(timeMicros)) return;
    this.advance(timeMicros);
    this.step(0);
  }

  takeTimers(untilMicros: number): void {
    for (let taken = 0; taken < TIMERS_MAX; taken += 1) {
      const atMicros = this.deadlineMicros;
      if (!(atMicros < untilMicros)) return;
      // At the same time the condition is first: what holds at T counts.
      if (this.prepared.rule.tickMicros !== null && !this.isLeft) {
        this.#evaluate(atMicros, atMicros <= this.#device.knownUntil(this));
      }
      this.#takeTimer(atMicros);
    }
    this.advance(untilMicros);
  }

  recallTicks(untilMicros: number): void {
    const { tickMicros } = this.prepared.rule;
    if (tickMicros === null || this.timeMicros === -Infinity) return;
    this.advance(untilMicros - tickMicros * RECALLED_TICKS);
    for (let atMicros = this.#tickAt; atMicros < untilMicros; atMicros = this.#tickAt) {
      this.evaluate(atMicros);
    }
  }

  recall({ state: { level, activeAt, clearSince } }: OpenAlert): void {
    if (clearSince !== null || activeAt === null) return;
    this.prepared.rule.restoreMemory(this.memory, level, activeAt);
  }

  restore(open: OpenAlert): void {
    this.#track = this.#newTrack(open);
    this.#device.noteDeadline(this.deadlineMicros);
  }

  instanceOf(): RuleInstance {
    return this;
  }

  /** Goes on to a time; never back. */
  advance(timeMicros: number): void {
    if (timeMicros > this.timeMicros) this.timeMicros = timeMicros;
  }

  begin(atMicros: number, connectionMicros: number): void {
    const { tickMicros, metrics, usesConnection } = this.prepared.rule;
    if (tickMicros !== null && this.timeMicros > -Infinity) {
      this.advance(atMicros - tickMicros * BEGIN_TICKS);
      this.#device.noteDeadline(this.#tickAt);
    }
    const isNeverEvaluated = metrics.length === 0 && this.timeMicros === -Infinity;
    // What holds since the connection is what it is has held from then on.
    if (usesConnection) this.evaluate(Math.min(atMicros, connectionMicros));
    else if (tickMicros !== null && isNeverEvaluated) this.evaluate(atMicros);
  }

  confirm(atMicros: number): void {
    if (this.isIdle || this.#isVerdictOut) return;
    const level = this.#level();
    if (level === 0) this.end('rule_changed', atMicros);
    else this.step(level);
  }

  end(reason: TransitionReason, atMicros: number, alertId?: string): void {
    if (this.#track === null) return;
    if (alertId !== undefined && this.#track.open?.alertId !== alertId) return;
    this.advance(atMicros);
    this.#took(this.#track.end(reason, this.timeMicros));
  }

  /** Whether steps of that time are on record. */
  #isKnown(timeMicros: number): boolean {
    return this.#device.isCatchingUp && timeMicros <= this.#device.knownUntil(this);
  }

  get #isVerdictOut(): boolean {
    const { rule } = this.prepared;
    return rule.noData !== null && this.#device.silenceOf(rule.ruleId) === undefined;
  }

  /** Whether its alert fires and nothing can be said of its condition. */
  get #staysFiring(): boolean {
    return this.#track?.state.phase === 'firing' && this.prepared.rule.isUnknown(this);
  }

  get #tickAt(): number {
    const { tickMicros } = this.prepared.rule;
    // Before the first evaluation -Infinity, which is no time to look again.
    if (tickMicros === null || this.isLeft || this.timeMicros === -Infinity) return Infinity;
    const next = (Math.floor(this.timeMicros / tickMicros) + 1) * tickMicros;
    const changesAt = this.prepared.rule.changesAt(this);
    return changesAt <= next ? next : Math.ceil(changesAt / tickMicros) * tickMicros;
  }

  #level(): Level {
    const { meter, rule } = this.prepared;
    try {
      return meter.evaluate(rule, this);
    } catch (cause) {
      this.#device.failed(rule, cause);
      return 0;
    }
  }

  #takeTimer(atMicros: number): void {
    const track = this.#track;
    if (track === null || track.deadline > atMicros) return;
    this.advance(atMicros);
    this.#took(track.takeTimer(atMicros));
  }

  #took(transitions: readonly Transition[]): void {
    for (const transition of transitions) this.#device.emit(transition);
    this.#device.noteDeadline(this.deadlineMicros);
  }

  #newTrack(open: OpenAlert | null): AlertTrack {
    return new AlertTrack(this.prepared.rule, this.#device.device, {
      groupKey: this.#groupKey,
      context: this,
      open,
    });
  }
}

// HOT PATH: bench/rules-evaluation.ts
import type {
  CompiledRule,
  ConnectionState,
  EventInput,
  FleetValues,
  Silence,
} from '../compiled-rule.ts';
import type { LoadedDevice, OpenAlert, RuleDevice, StoredEvent } from './device-load.ts';
import { happeningsOf, type Past } from './device-history.ts';
import { moveOn, SampleReadings, type DeviceSeries } from './device-series.ts';
import { ReorderFeed, type Delayed, type DelayedReading } from './reorder-feed.ts';
import type { InstanceDevice, RuleInstance, RuleWatch } from './rule-instance.ts';
import { RuleWatches, type RuleExchange } from './rule-watches.ts';
import type { Transition, TransitionReason } from '../alert/transition.ts';

/** Where an evaluation is told of, and what it asks. Shared by all devices. */
export interface EvaluationParts {
  /** Told of each step of an alert, in order for each alert. */
  readonly emit: (transition: Transition) => void;
  /** Without it comparisons with the fleet do not hold. */
  readonly fleet?: FleetValues;
  /** Told of readings that came late for a rule with `re-evaluate`. */
  readonly onLate?: (late: LateReading) => void;
  /** Told of a rule that has thrown. Without it that is thrown on. */
  readonly onFailed?: (rule: CompiledRule, cause: unknown) => void;
  /** Readings, events and changes of a device that wait at most for their order; more are evaluated early. */
  readonly reorderMax?: number;
  readonly sample?: SampleReadings;
}

/** A reading that came when later ones were evaluated already, of a rule that wants it evaluated later on. */
export interface LateReading {
  readonly deviceId: number;
  readonly organizationId: number;
  readonly metric: string;
  readonly timeMicros: number;
}

const NO_FLEET: FleetValues = { value: () => NaN };
const REORDER_MAX = 10_000;
const NO_FEEDS: readonly ReorderFeed[] = [];

/**
 * The rules of one device, evaluated in event time. Pure: it has no clock, does no I/O, and what it emits
 * follows from the order of its calls alone, so that live evaluation and a backtest are the same code.
 * Calls may come with any time; what is late is left to the policy of each rule. In a steady state nothing
 * is allocated. All that throws is a rule's operator, which is a fault of ours.
 */
export class DeviceEvaluation implements InstanceDevice {
  device: RuleDevice;
  connection: ConnectionState = 'never';
  event: EventInput | null = null;
  isCatchingUp = false;
  readonly #parts: EvaluationParts;
  readonly #sample: SampleReadings;
  readonly #watches: RuleWatches;
  /** Since when the connection is what it is; 0 when that is not known. */
  #connectionMicros = 0;
  /** By name of the event: the time of the last one. Null until the first. */
  #eventTimes: Map<string, number> | null = null;
  /** By rule, once somebody has looked for silence. */
  #silences: Map<number, Silence | null> | null = null;
  #feeds: readonly ReorderFeed[] = NO_FEEDS;
  /** Up to there readings may have been evaluated before the program ended. */
  #knownMicros = -Infinity;
  /** No later than the first timer that is due. */
  #deadlineMicros = Infinity;

  constructor(device: RuleDevice, rules: readonly CompiledRule[], parts: EvaluationParts) {
    this.device = device;
    this.#parts = parts;
    this.#sample = parts.sample ?? new SampleReadings();
    this.#watches = new RuleWatches(this, rules);
    this.#feeds = this.#feedsOf(rules);
  }

  get isWarming(): boolean {
    return this.#watches.isWarming;
  }

  get fleet(): FleetValues {
    return this.#parts.fleet ?? NO_FLEET;
  }

  /** The rules, in the order in which they are evaluated. */
  get rules(): readonly CompiledRule[] {
    return this.#watches.all.map(({ prepared }) => prepared.rule);
  }

  /** When {@link takeTimers} has something to do, at the earliest, in event time; Infinity for never. */
  get nextDeadline(): number {
    let earliest = this.#deadlineMicros;
    for (const { deadlineMicros } of this.#feeds) earliest = Math.min(earliest, deadlineMicros);
    return earliest;
  }

  /** Alerts that are pending or firing, and recorded. Allocates. */
  get openAlerts(): readonly OpenAlert[] {
    return this.#watches.openAlerts;
  }

  /** Whether an alert is pending or firing, a timer runs, or readings wait for their order. */
  get isBusy(): boolean {
    return this.nextDeadline < Infinity || this.#watches.all.some(({ isIdle }) => !isIdle);
  }

  /** The handle of a metric; null when no rule looks at it. */
  series(metric: string): DeviceSeries | null {
    return this.#watches.find(metric);
  }

  /** Whether the newest reading of a metric is known. */
  knows(metric: string): boolean {
    return (this.series(metric)?.series.timeMicros ?? -Infinity) > -Infinity;
  }

  /**
   * One reading of the sample that the next {@link sampleEnd} closes. Hot path.
   * @param value 1 or 0 of a boolean; NaN of a text.
   */
  reading(handle: DeviceSeries, value: number, text: string | null): void {
    this.#sample.add(handle, value, text);
  }

  /**
   * Evaluates each rule that looks at a reading of the sample, once. Hot path.
   * @param timeMicros event time, microseconds since 1970.
   */
  sampleEnd(timeMicros: number): void {
    const sample = this.#sample;
    if (this.#deadlineMicros < timeMicros) this.#takeTimersOfSample(timeMicros);
    for (let index = 0; index < sample.count; index += 1) {
      const handle = sample.handles[index];
      if (handle !== undefined) this.#apply(handle, index, timeMicros);
    }
    sample.count = 0;
    sample.evaluateTouched(timeMicros);
    if (this.#feeds.length > 0) this.#release(-Infinity);
  }

  /** An event. One that is not later than the last of its name is a copy, or too late. */
  takeEvent(event: StoredEvent): void {
    const { name, timeMicros } = event;
    const isNewer = this.#isNewEvent(name, timeMicros);
    for (const feed of this.#feeds) feed.add({ timeMicros, event });
    for (const watch of this.#watches.all) {
      const { rule, isApart, latenessMicros } = watch.prepared;
      if (latenessMicros > 0 || !rule.events.includes(name)) continue;
      if (isApart ? !this.#isLate(watch, timeMicros, null) : isNewer)
        this.#evaluateEvent(watch, event);
    }
    this.#release(-Infinity);
  }

  /** What is known of the connection from that time on. */
  setConnection(connection: ConnectionState, atMicros: number): void {
    if (connection === this.connection) return;
    this.#release(atMicros);
    const watches = this.#watches.all.filter(({ prepared }) => prepared.rule.usesConnection);
    takeTimersOf(watches, atMicros);
    this.connection = connection;
    this.#connectionMicros = atMicros;
    for (const watch of watches) watch.evaluate(atMicros - watch.prepared.latenessMicros);
  }

  /** What a rule is told of the device's silence from that time on; null: it is not silent. */
  setSilence(ruleId: number, silence: Silence | null, atMicros: number): void {
    if (this.silenceOf(ruleId) === silence) return;
    this.#release(atMicros);
    const watches = this.#watches.all.filter(({ prepared }) => prepared.rule.ruleId === ruleId);
    takeTimersOf(watches, atMicros);
    (this.#silences ??= new Map()).set(ruleId, silence);
    for (const watch of watches) watch.evaluate(atMicros - watch.prepared.latenessMicros);
  }

  silenceOf(ruleId: number): Silence | null | undefined {
    return this.#silences?.get(ruleId);
  }

  /**
   * Takes what is due before a time: timers, ticks of rules whose verdict time may change, and readings that
   * have waited for their order. A timer at exactly that time waits for readings of that time.
   */
  takeTimers(untilMicros: number): void {
    this.#release(untilMicros);
    if (!(this.#deadlineMicros < untilMicros)) return;
    takeTimersOf(this.#watches.all, untilMicros);
    // Anew: what was noted on the way is over.
    this.#deadlineMicros = Infinity;
    for (const { deadlineMicros, prepared } of this.#watches.all) {
      this.noteDeadline(deadlineMicros + prepared.latenessMicros);
    }
  }

  /**
   * Takes up what is known of the device from before, once, in the beginning: windows are filled, alerts go
   * on. Readings from `catchUpFromMicros` on are evaluated; but not for a rule whose alert has taken a step
   * at a later time already.
   * @returns open alerts of rules that the device does not have.
   */
  load(loaded: LoadedDevice): readonly OpenAlert[] {
    this.connection = loaded.connection;
    this.#connectionMicros = loaded.connectionMicros;
    for (const { name, timeMicros } of loaded.events ?? []) {
      if (timeMicros < loaded.catchUpFromMicros) this.#isNewEvent(name, timeMicros);
    }
    return this.#watches.load(loaded, (past) => this.#catchUp(past));
  }

  /**
   * Exchanges the rules. One of the same version goes on as it is. A firing alert of another version goes
   * on when its condition holds under the new one, and else ends as `rule_changed`, as a pending one does.
   */
  replaceRules(rules: readonly CompiledRule[], exchange: RuleExchange): void {
    this.#feeds = this.#feedsOf(rules);
    this.#watches.replace(rules, exchange);
  }

  /**
   * Begins to look at what no reading brings about (connections, schedules), behind {@link load} or
   * {@link replaceRules}: from that time on, as long as nobody has.
   */
  begin(atMicros: number): void {
    // What has waited long enough is first: a rule goes on to the time at which it begins.
    this.#release(atMicros);
    const connectionMicros = this.#connectionMicros || atMicros;
    for (const watch of this.#watches.all) {
      watch.begin(atMicros - watch.prepared.latenessMicros, connectionMicros);
    }
  }

  /** Ends an alert because somebody says so. @returns false when it is not open. */
  end(alertId: string, reason: TransitionReason, atMicros: number): boolean {
    if (!this.openAlerts.some((open) => open.alertId === alertId)) return false;
    for (const watch of this.#watches.all) watch.end(reason, atMicros, alertId);
    return true;
  }

  emit(transition: Transition): void {
    this.#parts.emit(transition);
  }

  noteDeadline(atMicros: number): void {
    if (atMicros < this.#deadlineMicros) this.#deadlineMicros = atMicros;
  }

  knownUntil(instance: RuleInstance): number {
    return this.#watches.known.get(instance) ?? -Infinity;
  }

  leaveKnown(instance: RuleInstance): void {
    this.#watches.known.delete(instance);
  }

  failed(rule: CompiledRule, cause: unknown): void {
    if (this.#parts.onFailed === undefined) throw cause;
    this.#parts.onFailed(rule, cause);
  }

  #feedsOf(rules: readonly CompiledRule[]): readonly ReorderFeed[] {
    const latenesses = new Set(rules.map(({ definition }) => definition.allowedLatenessMicros));
    latenesses.delete(0);
    const max = this.#parts.reorderMax ?? REORDER_MAX;
    return [...latenesses].map((latenessMicros) => {
      const known = this.#feeds.find((feed) => feed.latenessMicros === latenessMicros);
      return known ?? new ReorderFeed(latenessMicros, max);
    });
  }

  #takeTimersOfSample(timeMicros: number): void {
    const { handles, count } = this.#sample;
    for (let index = 0; index < count; index += 1) {
      const handle = handles[index];
      if (handle === undefined) continue;
      for (const watch of handle.watches) watch.takeTimers(timeMicros);
      for (const { watch } of handle.apart) {
        if (watch.prepared.latenessMicros === 0) watch.takeTimers(timeMicros);
      }
    }
  }

  /** Moves a series on that the sample has a reading of, and notes who looks at it. */
  #apply(handle: DeviceSeries, index: number, timeMicros: number): void {
    const sample = this.#sample;
    const value = sample.values[index] ?? NaN;
    const text = sample.texts[index] ?? null;
    if (moveOn(handle.series, timeMicros, value, text)) {
      const { watches } = handle;
      for (let place = 0; place < watches.length; place += 1) {
        const watch = watches[place];
        if (watch !== undefined) sample.touch(watch);
      }
    } else sample.late += 1;
    if (handle.apart.length === 0) return;
    for (const feed of this.#feeds) {
      if (isDelayedBy(feed, handle)) feed.add({ timeMicros, handle, value, text });
    }
    this.#applyApart({ handle, timeMicros, value, text }, 0);
  }

  /** The same for rules with series of their own, as far as they wait so long for the order. */
  #applyApart({ handle, timeMicros, value, text }: DelayedReading, latenessMicros: number): void {
    for (const { watch, series } of handle.apart) {
      if (watch.prepared.latenessMicros !== latenessMicros) continue;
      if (this.#isLate(watch, timeMicros, handle.metric)) continue;
      if (moveOn(series, timeMicros, value, text)) this.#sample.touch(watch);
      else this.#sample.late += 1;
    }
  }

  /** Whether a rule does not take what is older than what it was evaluated up to. */
  #isLate(watch: RuleWatch, timeMicros: number, metric: string | null): boolean {
    const { late } = watch.prepared.rule.definition;
    if (timeMicros >= watch.timeMicros || late === 'current-only') return false;
    // It was not late when it came: its alert has taken a step behind it before the program ended.
    if (this.isCatchingUp) return false;
    this.#sample.late += 1;
    if (late === 're-evaluate' && metric !== null) {
      const { deviceId, organizationId } = this.device;
      this.#parts.onLate?.({ deviceId, organizationId, metric, timeMicros });
    }
    return true;
  }

  /** Whether it is later than the last event of that name; then it is the last one. */
  #isNewEvent(name: string, timeMicros: number): boolean {
    if (timeMicros <= (this.#eventTimes?.get(name) ?? -Infinity)) return false;
    (this.#eventTimes ??= new Map()).set(name, timeMicros);
    return true;
  }

  #evaluateEvent(watch: RuleWatch, event: StoredEvent): void {
    watch.takeTimers(event.timeMicros);
    this.event = event;
    watch.evaluateEvent(event.timeMicros);
    this.event = null;
  }

  /** Has what waited for its order go on, as far as that is certain, or was due before a time. */
  #release(wallMicros: number): void {
    for (const feed of this.#feeds) {
      for (;;) {
        const delayed = feed.takeSample(wallMicros);
        if (delayed.length === 0) break;
        this.#evaluateDelayed(delayed, feed.latenessMicros);
      }
    }
  }

  #evaluateDelayed(delayed: readonly Delayed[], latenessMicros: number): void {
    const timeMicros = delayed[0]?.timeMicros ?? 0;
    const isOfFeed = ({ prepared }: RuleWatch): boolean =>
      prepared.latenessMicros === latenessMicros;
    for (const each of delayed) {
      if ('event' in each) continue;
      for (const { watch } of each.handle.apart) {
        if (isOfFeed(watch)) watch.takeTimers(timeMicros);
      }
    }
    // What was fed in again may have waited until now.
    this.isCatchingUp = timeMicros <= this.#knownMicros;
    for (const each of delayed) if ('handle' in each) this.#applyApart(each, latenessMicros);
    this.#sample.evaluateTouched(timeMicros);
    for (const each of delayed) {
      if (!('event' in each)) continue;
      for (const watch of this.#watches.all) {
        const isAsked = isOfFeed(watch) && watch.prepared.rule.events.includes(each.event.name);
        if (isAsked && !this.#isLate(watch, timeMicros, null))
          this.#evaluateEvent(watch, each.event);
      }
    }
    this.isCatchingUp = false;
  }

  #catchUp({ history, events }: Past): void {
    for (const { timeMicros, readings, event } of happeningsOf(history, events)) {
      this.#knownMicros = timeMicros;
      this.isCatchingUp = true;
      for (const { metric, value, text } of readings) {
        const handle = this.series(metric);
        if (handle !== null) this.reading(handle, value, text);
      }
      if (event === null) this.sampleEnd(timeMicros);
      else this.takeEvent(event);
    }
    this.isCatchingUp = false;
  }
}

function takeTimersOf(watches: readonly RuleWatch[], untilMicros: number): void {
  for (const watch of watches) watch.takeTimers(untilMicros - watch.prepared.latenessMicros);
}

function isDelayedBy({ latenessMicros }: ReorderFeed, { apart }: DeviceSeries): boolean {
  return apart.some(({ watch }) => watch.prepared.latenessMicros === latenessMicros);
}

import type { CompiledRule } from '../compiled-rule.ts';
import { feedPast, splitPast, type Past } from './device-history.ts';
import type { LoadedDevice, OpenAlert, StoredReading } from './device-load.ts';
import { DeviceSeries, emptySeries } from './device-series.ts';
import { prepareRule, type PreparedRule } from './prepared-rule.ts';
import { RuleGroups } from './rule-groups.ts';
import { RuleInstance, type InstanceDevice, type RuleWatch } from './rule-instance.ts';
import type { TransitionReason } from '../alert/transition.ts';

/** With what rules are exchanged. */
export interface RuleExchange {
  /** Event time of what ends by it, microseconds since 1970. */
  readonly atMicros: number;
  /** Why the alerts of a rule that the device has no more end. */
  readonly reasonOf: (ruleId: number) => TransitionReason;
  /** What rules that are new look back at, in order of time; see `LoadedDevice.history`. */
  readonly history: readonly StoredReading[];
}

/** The rules of one device, and the series that they look at. */
export class RuleWatches {
  readonly #device: InstanceDevice;
  readonly #series = new Map<string, DeviceSeries>();
  #watches: readonly RuleWatch[];
  /** While true conditions are evaluated for what they remember, and alerts take no steps. */
  isWarming = false;
  /** Of alerts that had ended: up to when their steps are on record. */
  readonly known = new Map<RuleInstance, number>();

  constructor(device: InstanceDevice, rules: readonly CompiledRule[]) {
    this.#device = device;
    this.#watches = rules.map((rule) => this.#newWatch(prepareRule(rule)));
    for (const watch of this.#watches) this.#connect(watch);
  }

  /** In the order in which they are evaluated. */
  get all(): readonly RuleWatch[] {
    return this.#watches;
  }

  /** Alerts that are pending or firing, and recorded. */
  get openAlerts(): readonly OpenAlert[] {
    return this.#watches.flatMap((watch) => watch.openAlerts);
  }

  /** The handle of a metric; null when no rule looks at it. */
  find(metric: string): DeviceSeries | null {
    const handle = this.#series.get(metric);
    return handle?.isWatched === true ? handle : null;
  }

  /** See `DeviceEvaluation.load`. @param catchUp feeds in what is to be evaluated again. */
  load(
    { history, events = [], catchUpFromMicros, tickedMicros, open, settled }: LoadedDevice,
    catchUp: (past: Past) => void,
  ): readonly OpenAlert[] {
    const [evaluated, unevaluated] = splitPast({ history, events }, catchUpFromMicros);
    for (const alert of open) this.#findRule(alert.ruleId)?.recall(alert);
    this.#warm(evaluated, this.#watches);
    this.#warmTicks(Math.min(tickedMicros ?? -Infinity, catchUpFromMicros));
    for (const { ruleId, untilMicros, groupKey } of settled) {
      const instance = this.#findRule(ruleId)?.instanceOf(groupKey) ?? null;
      if (instance !== null) this.known.set(instance, untilMicros);
    }
    for (const alert of open) this.#findRule(alert.ruleId)?.restore(alert);
    catchUp(unevaluated);
    return open.filter((alert) => !this.#goesOn(alert));
  }

  /** See `DeviceEvaluation.replaceRules`. */
  replace(rules: readonly CompiledRule[], { atMicros, reasonOf, history }: RuleExchange): void {
    const left = new Map(this.#watches.map((watch) => [watch.prepared.rule, watch]));
    const added: RuleWatch[] = [];
    this.#watches = rules.map((rule) => {
      const watch = left.get(rule) ?? this.#newWatch(prepareRule(rule));
      if (!left.delete(rule)) added.push(watch);
      return watch;
    });
    for (const handle of this.#series.values()) handle.unwatch();
    for (const watch of this.#watches) this.#connect(watch);
    for (const { openAlerts, prepared } of left.values()) {
      const next = this.#findRule(prepared.rule.ruleId);
      for (const open of openAlerts) if (open.state.phase === 'firing') next?.recall(open);
    }
    this.#warm({ history, events: [] }, added);
    for (const watch of left.values()) {
      const { ruleId } = watch.prepared.rule;
      const next = this.#findRule(ruleId);
      if (next === null) watch.end(reasonOf(ruleId), atMicros);
      else handOver(watch, next, atMicros);
    }
  }

  /** Has rules remember readings of the past, as if they had been evaluated then; alerts take no steps. */
  #warm(past: Past, watches: readonly RuleWatch[]): void {
    this.isWarming = true;
    feedPast(past, this.#series, new Set(watches), (watch, event) => {
      this.#device.event = event;
      watch.evaluateEvent(event.timeMicros);
      this.#device.event = null;
    });
    this.isWarming = false;
  }

  /** The same with the ticks that were taken before a time. */
  #warmTicks(untilMicros: number): void {
    this.isWarming = true;
    for (const watch of this.#watches) watch.recallTicks(untilMicros);
    this.isWarming = false;
  }

  /** Null when the device has no such rule. */
  #findRule(ruleId: number): RuleWatch | null {
    return this.#watches.find(({ prepared }) => prepared.rule.ruleId === ruleId) ?? null;
  }

  /**
   * Has an alert that was restored go on behind its last step. If the device has another version of its
   * rule, that decides. @returns whether the device has its rule.
   */
  #goesOn({ ruleId, ruleVersion, groupKey, changedMicros }: OpenAlert): boolean {
    const watch = this.#findRule(ruleId);
    // What waits for its order still is evaluated at its own times.
    if (watch?.prepared.latenessMicros === 0) watch.instanceOf(groupKey)?.advance(changedMicros);
    if (watch !== null && watch.prepared.rule.version !== ruleVersion) {
      watch.confirm(Math.max(watch.timeMicros, changedMicros));
    }
    return watch !== null;
  }

  #newWatch(prepared: PreparedRule): RuleWatch {
    const series = prepared.metrics.map((metric) =>
      prepared.isApart ? emptySeries(metric) : this.#handleOf(metric).series,
    );
    return prepared.rule.definition.groupBy === null
      ? new RuleInstance(prepared, this.#device, series)
      : new RuleGroups(prepared, this.#device, series);
  }

  #connect(watch: RuleWatch): void {
    for (const series of watch.series) this.#handleOf(series.metric).watchedBy(watch, series);
  }

  #handleOf(metric: string): DeviceSeries {
    let handle = this.#series.get(metric);
    if (handle === undefined) {
      handle = new DeviceSeries(metric);
      this.#series.set(metric, handle);
    }
    return handle;
  }
}

/** A firing alert goes on under another version of its rule while it holds; all else ends. */
function handOver(before: RuleWatch, next: RuleWatch, atMicros: number): void {
  const isSameGroups =
    before.prepared.rule.definition.groupBy === next.prepared.rule.definition.groupBy;
  for (const open of before.openAlerts) {
    if (isSameGroups && open.state.phase === 'firing') {
      next.restore(open);
      next.instanceOf(open.groupKey)?.advance(before.timeMicros);
    } else before.end('rule_changed', atMicros, open.alertId);
  }
  next.confirm(atMicros);
}

import type { EventInput, Series } from '../compiled-rule.ts';
import type { OpenAlert } from './device-load.ts';
import type { PreparedRule } from './prepared-rule.ts';
import { RuleInstance, type InstanceDevice, type RuleWatch } from './rule-instance.ts';
import type { TransitionReason } from '../alert/transition.ts';

/** Group keys of a rule for a device. Beyond it the oldest without an open alert is forgotten. */
export const GROUPS_MAX = 64;
/** A longer key is cut. */
export const GROUP_KEY_LENGTH_MAX = 120;

/**
 * A rule with `groupBy` for one device: an instance, with its own memory and alert, for each key. By a text
 * metric one key is the device's at a time: the condition of the one that is left counts as cleared. By a
 * member of events each key has events of its own, and readings concern them all.
 */
export class RuleGroups implements RuleWatch {
  readonly prepared: PreparedRule;
  readonly series: readonly Series[];
  timeMicros = -Infinity;
  isTouched = false;
  /** Keys that were not evaluated because {@link GROUPS_MAX} have an open alert. */
  refusedKeys = 0;
  readonly #device: InstanceDevice;
  readonly #groups = new Map<string, RuleInstance>();
  #current: RuleInstance | null = null;
  #currentKey: string | null = null;

  constructor(prepared: PreparedRule, device: InstanceDevice, series: readonly Series[]) {
    this.prepared = prepared;
    this.#device = device;
    this.series = series;
  }

  get isIdle(): boolean {
    for (const group of this.#groups.values()) if (!group.isIdle) return false;
    return true;
  }

  get openAlerts(): readonly OpenAlert[] {
    return [...this.#groups.values()].flatMap(({ openAlerts }) => openAlerts);
  }

  get deadlineMicros(): number {
    let earliest = Infinity;
    for (const { deadlineMicros } of this.#groups.values()) {
      if (deadlineMicros < earliest) earliest = deadlineMicros;
    }
    return earliest;
  }

  evaluate(timeMicros: number): void {
    this.#advance(timeMicros);
    const groupSeries = this.series[this.prepared.groupIndex];
    if (groupSeries === undefined) {
      for (const group of this.#groups.values()) group.evaluate(timeMicros);
      return;
    }
    const key = keyOfSeries(groupSeries);
    if (key !== this.#currentKey) this.#moveTo(key, timeMicros);
    this.#current?.evaluate(timeMicros);
  }

  evaluateEvent(timeMicros: number): void {
    const { event } = this.#device;
    if (this.prepared.groupIndex >= 0 || event === null) {
      this.evaluate(timeMicros);
      return;
    }
    this.#advance(timeMicros);
    const key = keyOfEvent(event, this.prepared.rule.definition.groupBy);
    this.#groupOf(key)?.evaluate(timeMicros);
  }

  takeTimers(untilMicros: number): void {
    for (const [key, group] of this.#groups) {
      group.takeTimers(untilMicros);
      this.#advance(group.timeMicros);
      if (group.isLeft) this.#dropIdle(key, group);
    }
  }

  recallTicks(untilMicros: number): void {
    for (const group of this.#groups.values()) group.recallTicks(untilMicros);
  }

  recall(open: OpenAlert): void {
    this.#groupOf(open.groupKey)?.recall(open);
  }

  restore(open: OpenAlert): void {
    const group = this.#groupOf(open.groupKey);
    if (group === null) return;
    group.restore(open);
    const groupSeries = this.series[this.prepared.groupIndex];
    const isOther = groupSeries !== undefined && keyOfSeries(groupSeries) !== open.groupKey;
    group.isLeft = isOther && open.state.clearSince !== null;
  }

  instanceOf(groupKey: string): RuleInstance | null {
    return this.#groupOf(groupKey);
  }

  begin(atMicros: number, connectionMicros: number): void {
    for (const group of this.#groups.values()) group.begin(atMicros, connectionMicros);
    if (this.prepared.rule.usesConnection) this.evaluate(Math.min(atMicros, connectionMicros));
  }

  confirm(atMicros: number): void {
    const groupSeries = this.series[this.prepared.groupIndex];
    const key = groupSeries === undefined ? null : keyOfSeries(groupSeries);
    for (const [groupKey, group] of this.#groups) {
      if (groupSeries === undefined || groupKey === key) group.confirm(atMicros);
      else group.end('rule_changed', atMicros);
    }
  }

  end(reason: TransitionReason, atMicros: number, alertId?: string): void {
    for (const group of this.#groups.values()) group.end(reason, atMicros, alertId);
  }

  #advance(timeMicros: number): void {
    if (timeMicros > this.timeMicros) this.timeMicros = timeMicros;
  }

  #moveTo(key: string | null, timeMicros: number): void {
    const next = key === null ? null : this.#groupOf(key);
    for (const [otherKey, group] of this.#groups) {
      if (group === next) continue;
      if (!group.isLeft) group.leave(timeMicros);
      this.#dropIdle(otherKey, group);
    }
    if (next !== null) next.isLeft = false;
    this.#current = next;
    this.#currentKey = key;
  }

  /** While readings are fed in again a group is kept: it knows which of its steps are on record. */
  #dropIdle(key: string, group: RuleInstance): void {
    if (group.isIdle && !this.#device.isCatchingUp) this.#groups.delete(key);
  }

  #groupOf(key: string): RuleInstance | null {
    const known = this.#groups.get(key);
    if (known !== undefined) return known;
    if (this.#groups.size >= GROUPS_MAX && !this.#forgetOne()) {
      this.refusedKeys += 1;
      return null;
    }
    const group = new RuleInstance(this.prepared, this.#device, this.series, key);
    this.#groups.set(key, group);
    return group;
  }

  #forgetOne(): boolean {
    for (const [key, group] of this.#groups) {
      if (!group.isIdle || group === this.#current) continue;
      this.#groups.delete(key);
      return true;
    }
    return false;
  }
}

/** Null while it has no value. */
function keyOfSeries({ text, value }: Series): string | null {
  if (text !== null) return text.slice(0, GROUP_KEY_LENGTH_MAX);
  return Number.isNaN(value) ? null : String(value);
}

/** Empty when the event has no such member, or one that is not a text, a number or a boolean. */
function keyOfEvent({ content }: EventInput, member: string | null): string {
  if (typeof content !== 'object' || content === null || member === null) return '';
  const value: unknown = Object.entries(content).find(([key]) => key === member)?.[1];
  const isPlain = typeof value === 'number' || typeof value === 'boolean';
  if (typeof value !== 'string' && !isPlain) return '';
  return String(value).slice(0, GROUP_KEY_LENGTH_MAX);
}

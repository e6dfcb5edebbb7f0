import type { AlertView } from './alert-view.ts';
import { isRepeatDue, standingOf, type Standing } from './dedup.ts';
import { flapDeadlineMs, flapPhase, toldFlap, type FlapPhase } from './flapping.ts';
import type { Flap, GroupMember, GroupState, Suppression } from './group-state.ts';
import type { NotifyLimits } from './limits.ts';
import { msOf, type RouteDefinition } from './route-definition.ts';

/** Why nobody is told of an alert now. */
export interface Hold {
  readonly reason: Suppression;
  /** Id of a silence, or the rule and device that inhibit; null when there is no such thing. */
  readonly by: string | null;
}

/** What a group is decided on with. */
export interface DecisionInput {
  readonly state: GroupState;
  readonly route: Pick<RouteDefinition, 'groupInterval' | 'repeatInterval'>;
  /** Of the alerts of the group, as they are now; one that is gone is missing. */
  readonly alerts: ReadonlyMap<string, AlertView>;
  /** The stages before: mute and inhibit. */
  readonly holdOf: (alert: AlertView) => Hold | null;
  readonly nowMs: number;
  readonly limits: NotifyLimits;
}

/** One message that is to be sent. */
export interface Told {
  readonly kind: 'alert' | 'digest';
  /** What the message is about: those that changed, or all of a repetition. */
  readonly changed: readonly AlertView[];
  /** What is firing besides. */
  readonly others: readonly AlertView[];
  /** Changes that it stands for. */
  readonly changes: number;
}

/** Alerts that somebody was not told of, and why. */
export interface Suppressed extends Hold {
  readonly alertIds: string[];
}

/** What comes of a group. */
export interface Decision {
  readonly tells: readonly Told[];
  readonly suppressed: readonly Suppressed[];
  readonly state: GroupState;
  /** When it is to be looked at again; null: nothing is left of it. */
  readonly flushAtMs: number | null;
}

/** Soonest time after which held alerts are looked at again. */
const RECHECK_MS_MIN = 10_000;

/**
 * Decides what a receiver is told of a group: the stages mute, inhibit, flapping and dedup. Pure. What is
 * held back stays in the group and is told, if it still holds, when nothing holds it any more.
 */
export function decide(input: DecisionInput): Decision {
  return new GroupDecision(input).run();
}

interface Known {
  readonly view: AlertView;
  readonly member: GroupMember;
  readonly standing: Standing;
}

/** The work of one {@link decide}. */
class GroupDecision {
  readonly #input: DecisionInput;
  readonly #alerts: Map<string, GroupMember>;
  readonly #told: Map<string, AlertView['level']>;
  readonly #flaps: Map<string, Flap>;
  readonly #suppressed = new Map<string, Suppressed>();
  /** Of alerts that mute or inhibit hold back: whether they flap is not looked at meanwhile. */
  readonly #heldKeys = new Set<string>();
  #hasHeld = false;
  #isEarly = false;

  constructor(input: DecisionInput) {
    this.#input = input;
    this.#alerts = new Map(Object.entries(input.state.alerts));
    this.#told = new Map(Object.entries(input.state.told));
    this.#flaps = new Map(Object.entries(input.state.flaps));
  }

  run(): Decision {
    const free = this.#known().filter((known) => !this.#isHeld(known));
    const phases = this.#phases(free);
    const phaseOf = ({ member }: Known): FlapPhase => phases.get(member.flapKey) ?? 'steady';
    const tells: Told[] = [];
    const flapping = free.filter((known) => phaseOf(known) !== 'steady');
    const digest = this.#tellFlapping(flapping, phases);
    if (digest !== null) tells.push(digest);
    const steady = this.#tellSteady(free.filter((known) => phaseOf(known) === 'steady'));
    if (steady !== null) tells.push(steady);
    this.#forgetFlaps();
    return this.#result(tells);
  }

  /** The alerts that still are; of one that is gone, nothing more is said. */
  #known(): Known[] {
    const known: Known[] = [];
    for (const [alertId, member] of this.#alerts) {
      const view = this.#input.alerts.get(alertId);
      if (view === undefined || view.isUntold) this.#forget(alertId);
      else known.push({ view, member, standing: standingOf(view, this.#input.state.told) });
    }
    return known;
  }

  #isHeld({ view, member, standing }: Known): boolean {
    const hold = this.#input.holdOf(view);
    if (hold === null) {
      const { held: _, ...rest } = member;
      if (member.held !== undefined) this.#alerts.set(view.alertId, rest);
      return false;
    }
    if (standing === 'ended') {
      if (member.held === undefined) this.#suppress(view.alertId, hold);
      this.#forget(view.alertId);
    } else if (standing !== 'same') {
      this.#hold(view.alertId, member, hold);
      this.#hasHeld = true;
    }
    this.#heldKeys.add(member.flapKey);
    return true;
  }

  #hold(alertId: string, member: GroupMember, hold: Hold): void {
    if (member.held === hold.reason) return;
    this.#suppress(alertId, hold);
    this.#alerts.set(alertId, { ...member, held: hold.reason });
  }

  #phases(free: readonly Known[]): Map<string, FlapPhase> {
    const { nowMs, limits } = this.#input;
    const phases = new Map<string, FlapPhase>();
    for (const { member } of free) {
      phases.set(member.flapKey, flapPhase(this.#flaps.get(member.flapKey), nowMs, limits));
    }
    return phases;
  }

  #tellFlapping(known: readonly Known[], phases: ReadonlyMap<string, FlapPhase>): Told | null {
    const changed: AlertView[] = [];
    const toldKeys = new Set<string>();
    for (const { view, member, standing } of known) {
      const phase = phases.get(member.flapKey) ?? 'steady';
      if (phase === 'held') {
        if (standing !== 'same') this.#hold(view.alertId, member, { reason: 'flapping', by: null });
        continue;
      }
      if (phase === 'notice' || this.#untold(member.flapKey) > 0) changed.push(view);
      this.#believe(view);
      toldKeys.add(member.flapKey);
    }
    let changes = 0;
    for (const flapKey of toldKeys) changes += this.#toldFlap(flapKey, phases.get(flapKey));
    return changed.length === 0 ? null : { kind: 'digest', changed, others: [], changes };
  }

  #untold(flapKey: string): number {
    return this.#flaps.get(flapKey)?.untold ?? 0;
  }

  /** Notes that the receiver was told; @returns of how many changes. */
  #toldFlap(flapKey: string, phase: FlapPhase = 'steady'): number {
    const flap = this.#flaps.get(flapKey);
    if (flap === undefined) return 0;
    const told = toldFlap(flap, phase, this.#input.nowMs);
    if (told === null) this.#flaps.delete(flapKey);
    else this.#flaps.set(flapKey, told);
    return phase === 'notice' ? flap.changes.length : flap.untold;
  }

  #tellSteady(known: readonly Known[]): Told | null {
    const { state, route, nowMs } = this.#input;
    const changed = known.filter(({ standing }) => standing === 'new' || standing === 'resolved');
    const same = known.filter(({ standing }) => standing === 'same').map(({ view }) => view);
    for (const { view, member, standing } of known) {
      if (standing !== 'ended') continue;
      const hold: Hold = { reason: 'ended_before_told', by: null };
      if (member.held === undefined) this.#suppress(view.alertId, hold);
      this.#forget(view.alertId);
    }
    this.#isEarly = changed.length > 0 && nowMs < this.#spacedMs();
    if (this.#isEarly) return null;
    for (const { view } of changed) this.#believe(view);
    if (changed.length > 0) {
      const views = changed.map(({ view }) => view);
      return { kind: 'alert', changed: views, others: same, changes: views.length };
    }
    const repeatMs = msOf(route.repeatInterval);
    return isRepeatDue(same, state, { nowMs, repeatMs })
      ? { kind: 'alert', changed: same, others: [], changes: 0 }
      : null;
  }

  /** The soonest time of the next message. */
  #spacedMs(): number {
    const { state, route } = this.#input;
    return state.toldMs === null ? -Infinity : state.toldMs + msOf(route.groupInterval);
  }

  /** The receiver will know of it as it is now. */
  #believe({ alertId, isFiring, level }: AlertView): void {
    if (isFiring) this.#told.set(alertId, level);
    else this.#forget(alertId);
  }

  #forget(alertId: string): void {
    this.#alerts.delete(alertId);
    this.#told.delete(alertId);
  }

  #forgetFlaps(): void {
    const { nowMs, limits } = this.#input;
    const inUse = new Set([...this.#alerts.values()].map(({ flapKey }) => flapKey));
    for (const [flapKey, flap] of this.#flaps) {
      const isOver = nowMs - flap.lastMs >= limits.flappingWindowMs;
      if (isOver && (flap.toldMs === null || !inUse.has(flapKey))) this.#flaps.delete(flapKey);
    }
  }

  #suppress(alertId: string, { reason, by }: Hold): void {
    const key = `${reason} ${by ?? ''}`;
    const found = this.#suppressed.get(key);
    if (found === undefined) this.#suppressed.set(key, { reason, by, alertIds: [alertId] });
    else found.alertIds.push(alertId);
  }

  #result(tells: readonly Told[]): Decision {
    const { state: before, nowMs } = this.#input;
    const state: GroupState = {
      alerts: Object.fromEntries(this.#alerts),
      told: Object.fromEntries(this.#told),
      flaps: Object.fromEntries(this.#flaps),
      toldMs: tells.length > 0 ? nowMs : before.toldMs,
    };
    const suppressed = [...this.#suppressed.values()];
    return { tells, suppressed, state, flushAtMs: this.#nextMs(state) };
  }

  #nextMs(state: GroupState): number | null {
    const { route, nowMs, limits } = this.#input;
    const at: number[] = [];
    if (this.#hasHeld) at.push(nowMs + Math.max(msOf(route.groupInterval), RECHECK_MS_MIN));
    if (this.#isEarly) at.push(this.#spacedMs());
    if (this.#told.size > 0) {
      const repeatMs = msOf(route.repeatInterval);
      const dueMs = (state.toldMs ?? nowMs) + repeatMs;
      at.push(dueMs > nowMs ? dueMs : nowMs + repeatMs);
    }
    for (const [flapKey, flap] of this.#flaps) {
      if (!this.#heldKeys.has(flapKey)) at.push(flapDeadlineMs(flap, limits));
    }
    // So that what comes next keeps its distance, although nothing else is left.
    const lastMs = state.toldMs === null ? 0 : state.toldMs + msOf(route.groupInterval);
    if (at.length === 0 && lastMs > nowMs) at.push(lastMs);
    return at.length === 0 ? null : Math.max(Math.min(...at), nowMs + 1000);
  }
}

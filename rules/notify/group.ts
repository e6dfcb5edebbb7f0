import { EMPTY_GROUP, type Flap, type GroupMember, type GroupState } from './group-state.ts';
import { noteChange } from './flapping.ts';
import type { NotifyLimits } from './limits.ts';
import { msOf, type RouteDefinition } from './route-definition.ts';

/** A change of an alert that a group is to tell. */
export interface GroupChange {
  readonly alertId: string;
  readonly sequence: number;
  readonly flapKey: string;
  /** Event time of the transition. */
  readonly atMs: number;
}

/** A group behind changes. */
export interface Grouped {
  readonly state: GroupState;
  /** When it is to be looked at; null: nothing new came. */
  readonly flushAtMs: number | null;
  /** Alerts that ended before anybody was told, and gave way to the next one of their device. */
  readonly ended: readonly string[];
  /** Alerts that found no room. */
  readonly left: readonly string[];
}

/**
 * Puts changes into a group. A change that it has seen makes no difference but that the group is looked
 * at. The first message waits for `groupWait`; behind one that was sent, for the rest of `groupInterval`.
 */
export function addChanges(
  state: GroupState,
  changes: readonly GroupChange[],
  route: Pick<RouteDefinition, 'groupWait' | 'groupInterval'>,
  { nowMs, limits }: { readonly nowMs: number; readonly limits: NotifyLimits },
): Grouped {
  const alerts = new Map(Object.entries(state.alerts));
  const flaps = new Map(Object.entries(state.flaps));
  const ended: string[] = [];
  const left: string[] = [];
  const latest = latestUntold(alerts, state.told);
  for (const change of changes) {
    const known = alerts.get(change.alertId);
    if (known !== undefined && known.sequence >= change.sequence) continue;
    noteFlap(flaps, change, nowMs, limits);
    if (known === undefined) {
      const before = latest.get(change.flapKey);
      if (before !== undefined) {
        alerts.delete(before);
        ended.push(before);
      }
      if (alerts.size >= limits.groupAlertsMax) {
        left.push(change.alertId);
        continue;
      }
      latest.set(change.flapKey, change.alertId);
    }
    alerts.set(change.alertId, memberOf(known, change));
  }
  const due = nowMs + msOf(route.groupWait);
  const next =
    state.toldMs === null ? due : Math.max(due, state.toldMs + msOf(route.groupInterval));
  return {
    state: {
      ...state,
      alerts: Object.fromEntries(alerts),
      flaps: Object.fromEntries(flaps),
    },
    flushAtMs: changes.length === 0 ? null : next,
    ended,
    left,
  };
}

function memberOf(known: GroupMember | undefined, change: GroupChange): GroupMember {
  const { flapKey, sequence } = change;
  return known?.held === undefined
    ? { flapKey, sequence }
    : { flapKey, sequence, held: known.held };
}

/** Only one alert of a rule and device is open: another one that was not told of has ended. */
function latestUntold(
  alerts: ReadonlyMap<string, GroupMember>,
  told: GroupState['told'],
): Map<string, string> {
  const latest = new Map<string, string>();
  for (const [alertId, { flapKey }] of alerts) {
    if (!Object.hasOwn(told, alertId)) latest.set(flapKey, alertId);
  }
  return latest;
}

function noteFlap(
  flaps: Map<string, Flap>,
  change: GroupChange,
  nowMs: number,
  limits: NotifyLimits,
): void {
  const before = flaps.get(change.flapKey);
  if (before === undefined && flaps.size >= limits.groupAlertsMax) return;
  flaps.set(change.flapKey, noteChange(before ?? null, { atMs: change.atMs, nowMs }, limits));
}

/** Reads the columns `members` and `told_members`; what does not look like them is nothing. */
export function groupStateOf(members: unknown, told: unknown, toldAt: Date | null): GroupState {
  const stored = (members ?? {}) as Partial<Pick<GroupState, 'alerts' | 'flaps'>>;
  return {
    alerts: stored.alerts ?? EMPTY_GROUP.alerts,
    flaps: stored.flaps ?? EMPTY_GROUP.flaps,
    told: (told ?? {}) as GroupState['told'],
    toldMs: toldAt?.getTime() ?? null,
  };
}

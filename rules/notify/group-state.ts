import type { Level } from '../severity.ts';

/** Why somebody was not told of an alert. */
export const SUPPRESSIONS = [
  'no_route',
  'stopped',
  'shadow',
  'snoozed',
  'silenced',
  'maintenance',
  'quiet_hours',
  'inhibited',
  'flapping',
  'ended_before_told',
  'group_full',
  'rate_cap',
  'route_changed',
  'failed',
] as const;

/** One of {@link SUPPRESSIONS}. */
export type Suppression = (typeof SUPPRESSIONS)[number];

/** An alert in a group. */
export interface GroupMember {
  /** Of its rule, device and group key: the same for all alerts that follow each other there. */
  readonly flapKey: string;
  /** Of its last transition that was seen. */
  readonly sequence: number;
  /** Why it is held back, where that was recorded. */
  readonly held?: Suppression;
}

/** How often the alerts of one rule and device changed. */
export interface Flap {
  /** Event times of the last changes, in ms; at most one more than an alert may have. */
  readonly changes: readonly number[];
  /** When the last change was seen. */
  readonly lastMs: number;
  /** Changes that nobody was told of, while it is flapping. */
  readonly untold: number;
  /** When the receiver was last told that it is flapping; null: it is not, or was not told yet. */
  readonly toldMs: number | null;
}

/**
 * What is remembered of a group of alerts: of one route and receiver, with equal group labels. Never
 * changed in place. How each alert stands is not in it: that is asked when the group is flushed.
 */
export interface GroupState {
  readonly alerts: Readonly<Record<string, GroupMember>>;
  readonly flaps: Readonly<Record<string, Flap>>;
  /** Alerts that the receiver believes to be firing, with the level that it was told. */
  readonly told: Readonly<Record<string, Level>>;
  /** When the receiver was last told of anything. */
  readonly toldMs: number | null;
}

/** A group that nothing is known of. */
export const EMPTY_GROUP: GroupState = { alerts: {}, flaps: {}, told: {}, toldMs: null };

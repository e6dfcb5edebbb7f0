import type { AlertView } from './alert-view.ts';
import type { GroupState } from './group-state.ts';

/**
 * How an alert stands to what its receiver believes. `new`: firing, or firing at another level than was
 * told. `resolved`: told as firing, and it has ended. `same`: as told. `ended`: it has ended, and nobody
 * had been told that it began.
 */
export type Standing = 'new' | 'resolved' | 'same' | 'ended';

/** Compares an alert with what was told. */
export function standingOf(
  { alertId, isFiring, level }: Pick<AlertView, 'alertId' | 'isFiring' | 'level'>,
  told: GroupState['told'],
): Standing {
  const toldLevel = Object.hasOwn(told, alertId) ? told[alertId] : undefined;
  if (isFiring) return toldLevel === level ? 'same' : 'new';
  return toldLevel === undefined ? 'ended' : 'resolved';
}

/**
 * Whether what was told is to be told again although nothing has changed: an alert is still firing after
 * `repeatMs`, and nobody has acknowledged it.
 */
export function isRepeatDue(
  same: readonly AlertView[],
  { toldMs }: Pick<GroupState, 'toldMs'>,
  { nowMs, repeatMs }: { readonly nowMs: number; readonly repeatMs: number },
): boolean {
  if (toldMs === null || nowMs - toldMs < repeatMs) return false;
  return same.some(({ isAcknowledged }) => !isAcknowledged);
}

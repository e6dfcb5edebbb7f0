import type { Flap } from './group-state.ts';
import type { NotifyLimits } from './limits.ts';

type FlapLimits = Pick<
  NotifyLimits,
  'flappingChangesMax' | 'flappingWindowMs' | 'flappingDigestMs'
>;

/** Counts a change of an alert. Remembers one change more than an alert may have in the window. */
export function noteChange(
  before: Flap | null,
  { atMs, nowMs }: { readonly atMs: number; readonly nowMs: number },
  limits: FlapLimits,
): Flap {
  const kept = (before?.changes ?? []).slice(-limits.flappingChangesMax);
  return {
    changes: [...kept, atMs],
    lastMs: nowMs,
    untold: (before?.untold ?? 0) + 1,
    toldMs: before?.toldMs ?? null,
  };
}

/**
 * Where an alert stands. `steady`: it is told as any other. `notice`: it has begun to flap, which is to
 * be told once. `held`: its changes are only counted. `digest`: what was counted is to be told, and it goes
 * on. `over`: it flaps no more; what was counted is to be told, and it is told as any other from now on.
 */
export type FlapPhase = 'steady' | 'notice' | 'held' | 'digest' | 'over';

/** The phase of an alert now. */
export function flapPhase(flap: Flap | undefined, nowMs: number, limits: FlapLimits): FlapPhase {
  if (flap === undefined) return 'steady';
  if (flap.toldMs === null) return isFlapping(flap, limits) ? 'notice' : 'steady';
  if (nowMs - flap.lastMs >= limits.flappingWindowMs) return 'over';
  return flap.untold > 0 && nowMs - flap.toldMs >= limits.flappingDigestMs ? 'digest' : 'held';
}

/** More changes than allowed lie within one window. */
function isFlapping({ changes }: Flap, limits: FlapLimits): boolean {
  if (changes.length <= limits.flappingChangesMax) return false;
  const first = changes[0] ?? 0;
  const last = changes.at(-1) ?? 0;
  return last - first <= limits.flappingWindowMs;
}

/** What is remembered when the receiver was told in that phase; null: nothing. */
export function toldFlap(flap: Flap, phase: FlapPhase, nowMs: number): Flap | null {
  if (phase === 'over') return null;
  return { ...flap, untold: 0, toldMs: nowMs };
}

/** When the phase may change without a change of the alert; the flap is forgotten then if it is steady. */
export function flapDeadlineMs(flap: Flap, limits: FlapLimits): number {
  const over = flap.lastMs + limits.flappingWindowMs;
  if (flap.toldMs === null || flap.untold === 0) return over;
  return Math.min(over, flap.toldMs + limits.flappingDigestMs);
}

import { stepClockObstacle } from '../step-clock.ts';
import type { Fault } from './fault.ts';

const HOUR_S = 3600;

/** The wall clock of the program jumps by an hour and later jumps back. Devices and database keep theirs. */
export function stepClock(direction: 'ahead' | 'back', durationMs: number): Fault {
  return {
    name: `clock-${direction}`,
    durationMs,
    needsServer: true,
    obstacle: stepClockObstacle,
    async apply({ clock }) {
      await clock?.set(direction === 'ahead' ? HOUR_S : -HOUR_S);
      return async () => clock?.set(0);
    },
  };
}

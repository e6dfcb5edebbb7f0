import type { Habit } from '../unruly-device.ts';
import type { Fault } from './fault.ts';

/**
 * Some devices send every message again, with DUP and without, or send them in another order, or
 * connect again and send again what is stored.
 */
export function unrulyDevices(habit: Exclude<Habit, 'none'>, durationMs: number): Fault {
  return {
    name: `${habit}-messages`,
    durationMs,
    needsServer: false,
    apply({ unruly }) {
      unruly.setHabit(habit);
      return Promise.resolve(() => {
        unruly.setHabit('none');
        return Promise.resolve();
      });
    },
  };
}

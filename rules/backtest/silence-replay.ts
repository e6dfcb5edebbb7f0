import type { CompiledRule } from '../compiled-rule.ts';
import { afterMicrosOf } from '../no-data/silence-state.ts';
import type { ScopeDevice } from './scope-devices.ts';

/**
 * After how long without a message a rule finds a device silent; null when it does not look for that, or
 * nothing is known of the device. The history does not tell a device that was away from one that was
 * silent while connected, nor messages that could not be stored: all count as `silent`.
 */
export function silentAfterMicrosOf({ noData }: CompiledRule, device: ScopeDevice): number | null {
  if (noData === null) return null;
  const { gapP99Micros } = device;
  return afterMicrosOf(noData.afterMicros, { intervalMicros: null, sleepS: 0, gapP99Micros });
}

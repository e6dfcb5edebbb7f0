import { Refusal } from './contract.ts';
import { DEPTH_MAX } from './json-text.ts';
import { shown } from './metric-name.ts';

/**
 * What of a parsed JSON value jsonb cannot hold (U+0000, halves of surrogate pairs, also in names), or
 * nests deeper than any reader should have to: {@link DEPTH_MAX} levels.
 * @returns null when there is no such thing.
 */
export function findStorageFault(value: unknown, depth = 0): Refusal | null {
  if (typeof value === 'string') return findTextFault(value);
  if (typeof value !== 'object' || value === null) return null;
  if (depth >= DEPTH_MAX) return new Refusal('too_deep', `more than ${DEPTH_MAX} levels`);
  for (const [key, member] of Object.entries(value)) {
    const fault = findTextFault(key) ?? findStorageFault(member, depth + 1);
    if (fault !== null) return fault;
  }
  return null;
}

function findTextFault(text: string): Refusal | null {
  if (!/\0|\p{Surrogate}/u.test(text)) return null;
  return new Refusal('bad_type', `${shown(text)}: U+0000 or half of a surrogate pair`);
}

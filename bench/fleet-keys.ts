import type { ApiClient } from './api-client.ts';

/** What one simulated board needs to connect. */
export interface BoardAccess {
  /** Number of the board, from 1. */
  number: number;
  device: string;
  keyId: string;
  key: string;
  /** Keys that it had before, when it was given others. */
  formerKeyIds?: string[];
}

/** How a fleet is named in the registry. */
export interface FleetName {
  /** Devices are `<prefix>-001` and so on. */
  prefix: string;
  /** Name of the keys that the fleet makes, and so of those it may revoke. */
  keyName: string;
  tags: readonly string[];
}

const CALLS_AT_ONCE = 8;
/** States of a key that lets its device in. */
const GOOD_STATES: ReadonlySet<string> = new Set(['pending', 'active', 'retiring']);

/**
 * Makes the devices that are missing and one key for each. Keys of the same name that an earlier run
 * left behind are revoked first.
 * @param advance called after each board with the number of boards that are ready; false ends early
 * @returns the boards that are ready, in the order of their numbers
 */
export async function provisionFleet(
  api: ApiClient,
  name: FleetName,
  count: number,
  advance: (ready: number) => boolean = () => true,
): Promise<BoardAccess[]> {
  const boards: BoardAccess[] = [];
  let isWanted = true;
  const numbers = Array.from({ length: count }, (_, index) => index + 1);
  await inParallel(numbers, CALLS_AT_ONCE, async (number) => {
    if (!isWanted) return;
    const device = deviceName(name.prefix, number);
    await api.ensureDevice(device, `Simulated board ${number}`, name.tags);
    for (const key of await api.listKeys(device)) {
      if (key.name === name.keyName && GOOD_STATES.has(key.state)) {
        await api.revokeKey(device, key.keyId);
      }
    }
    const { keyId, key } = await api.makeKey(device, name.keyName);
    boards.push({ number, device, keyId, key });
    isWanted = advance(boards.length) && isWanted;
  });
  return boards.sort((a, b) => a.number - b.number);
}

/** The public id in a key. */
export function keyIdOf(key: string): string {
  return key.split('_')[1] ?? '';
}

/** Revokes the keys that {@link provisionFleet} made, and those that took their place. */
export async function revokeFleetKeys(
  api: ApiClient,
  boards: readonly BoardAccess[],
): Promise<void> {
  await inParallel(boards, CALLS_AT_ONCE, async ({ device, keyId, formerKeyIds = [] }) => {
    for (const each of [keyId, ...formerKeyIds]) await api.revokeKey(device, each);
  });
}

/** Runs a task for each item, at most `atOnce` at a time. The first failure rejects and starts no more. */
export async function inParallel<T>(
  items: readonly T[],
  atOnce: number,
  task: (item: T) => Promise<void>,
): Promise<void> {
  let next = 0;
  let hasFailed = false;
  const worker = async (): Promise<void> => {
    while (next < items.length && !hasFailed) {
      const item = items[next] as T;
      next += 1;
      try {
        await task(item);
      } catch (error) {
        hasFailed = true;
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, worker));
}

/** Three digits or more, so that a larger fleet holds the devices of a smaller one. */
function deviceName(prefix: string, number: number): string {
  return `${prefix}-${String(number).padStart(3, '0')}`;
}

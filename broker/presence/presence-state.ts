import type { Hello } from '../../firmware-protocol/hello.ts';

/**
 * What is known of a device's connection. A device that has never connected has none. Immutable.
 *
 * - `online`: the connection `connectionNumber` is up.
 * - `sleeping`: no connection, and the device said that it sleeps; the next contact is not overdue.
 * - `offline`: no connection, and none is expected.
 */
export interface DevicePresence {
  readonly state: 'online' | 'sleeping' | 'offline';
  /** When the state began, in ms since 1970. Of `online`: when its connection began. */
  readonly sinceMs: number;
  /** When the device was last heard of, as far as connections and hellos tell. Ms since 1970. */
  readonly lastContactMs: number;
  /** That of the newest connection; see {@link createConnectionNumbers}. */
  readonly connectionNumber: number;
  /** Peer of the newest connection; empty when it is not known. */
  readonly address: string;
  /** What the device said of itself, over all its hellos; `up` is that of the last one. */
  readonly hello: Hello;
  /** When it last said hello, in ms since 1970; null when that is not known. */
  readonly helloMs: number | null;
}

/** What happens to a device. `atMs` is in ms since 1970. */
export type PresenceEvent =
  | {
      readonly kind: 'connect';
      readonly connectionNumber: number;
      readonly address: string;
      readonly atMs: number;
    }
  | {
      readonly kind: 'hello';
      readonly connectionNumber: number;
      readonly hello: Hello;
      readonly atMs: number;
    }
  | { readonly kind: 'disconnect'; readonly connectionNumber: number; readonly atMs: number }
  /** The program that held the connection has ended without a word of it. */
  | { readonly kind: 'orphan'; readonly atMs: number }
  /** Time has passed. */
  | { readonly kind: 'tick'; readonly atMs: number };

/** Beyond two and a half times its sleep a device has this long before it counts as offline. */
const GRACE_MS = 60_000;

/**
 * Advances a device's presence by one event. Pure. What concerns another connection than the newest
 * changes nothing, whenever it comes; times never go back, whatever the clock does.
 * @returns the same object when nothing changed; null while the device has never connected.
 */
export function stepPresence(
  presence: DevicePresence | null,
  event: PresenceEvent,
): DevicePresence | null {
  if (event.kind === 'connect') return connect(presence, event);
  if (presence === null) return null;
  const atMs = Math.max(event.atMs, presence.lastContactMs, presence.sinceMs);
  switch (event.kind) {
    case 'hello':
      return event.connectionNumber === presence.connectionNumber
        ? greet(presence, event.hello, atMs)
        : presence;
    case 'disconnect':
      return event.connectionNumber === presence.connectionNumber && presence.state === 'online'
        ? leave({ ...presence, lastContactMs: atMs }, atMs)
        : presence;
    case 'orphan':
      return expire(presence.state === 'online' ? leave(presence, atMs) : presence, atMs);
    case 'tick':
      return expire(presence, atMs);
  }
}

/** The time of which a presence was true: of a sleeping device that of its last contact. */
export function trueAtMs({ sinceMs, lastContactMs }: DevicePresence): number {
  return Math.max(sinceMs, lastContactMs);
}

/** When a sleeping device is overdue, in ms since 1970. */
export function deadlineOf({ hello, lastContactMs }: DevicePresence): number {
  return lastContactMs + 2500 * (hello.sleep ?? 0) + GRACE_MS;
}

/** Gives each connection a number that is higher than any before. */
export interface ConnectionNumbers {
  next(): number;
  /** Makes all further numbers higher than this one. */
  raise(floor: number): void;
}

/**
 * Numbers for connections: microseconds since 1970, or one more than the last. They rise across
 * restarts as the clock does; {@link ConnectionNumbers.raise} guards against a clock that was set back.
 * @param nowMicros the wall clock.
 */
export function createConnectionNumbers(nowMicros: () => number): ConnectionNumbers {
  let last = 0;
  return {
    next() {
      last = Math.max(last + 1, Math.trunc(nowMicros()));
      return last;
    },
    raise(floor) {
      last = Math.max(last, floor);
    },
  };
}

function connect(
  presence: DevicePresence | null,
  { connectionNumber, address, atMs }: Extract<PresenceEvent, { kind: 'connect' }>,
): DevicePresence {
  if (presence === null) {
    const times = { sinceMs: atMs, lastContactMs: atMs };
    return { state: 'online', ...times, connectionNumber, address, hello: {}, helloMs: null };
  }
  if (connectionNumber <= presence.connectionNumber) return presence;
  const sinceMs = Math.max(atMs, presence.lastContactMs, presence.sinceMs);
  return {
    ...presence,
    state: 'online',
    sinceMs,
    lastContactMs: sinceMs,
    connectionNumber,
    address,
  };
}

function greet(presence: DevicePresence, said: Hello, atMs: number): DevicePresence {
  const { up: _up, ...before } = presence.hello;
  const hello = { ...before, ...said };
  // Said before the connection ended, heard after it: no contact later than the end.
  const lastContactMs = presence.state === 'online' ? atMs : presence.lastContactMs;
  return { ...presence, hello, helloMs: atMs, lastContactMs };
}

/** Asleep since it was last heard of, gone since that was noticed. */
function leave(presence: DevicePresence, atMs: number): DevicePresence {
  if ((presence.hello.sleep ?? 0) === 0) return { ...presence, state: 'offline', sinceMs: atMs };
  return { ...presence, state: 'sleeping', sinceMs: presence.lastContactMs };
}

/** Offline since it was overdue, however late that is noticed. */
function expire(presence: DevicePresence, atMs: number): DevicePresence {
  if (presence.state !== 'sleeping' || atMs <= deadlineOf(presence)) return presence;
  const sinceMs = Math.max(deadlineOf(presence), presence.sinceMs);
  return { ...presence, state: 'offline', sinceMs };
}

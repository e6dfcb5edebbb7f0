/** One side of a connect: what tells two boards apart that use one key. */
export interface WatchedPeer {
  readonly address: string;
  /** The client identifier that the client sent, not the one that it was given. */
  readonly clientId: string;
  /** Number of the connection, as in `status` and in the log. */
  readonly connection: number;
}

/** Something odd about who uses a device's key. */
export interface IdentityFinding {
  /** `duplicate_identity`: two clients take the place from each other. `flapping`: one comes and goes. */
  readonly code: 'duplicate_identity' | 'flapping';
  /** `organization/device` */
  readonly device: string;
  /** Old and new one of the last take-over, or the one that flaps. */
  readonly peers: readonly WatchedPeer[];
  /** What happened how often within {@link windowS}. */
  readonly count: number;
  readonly windowS: number;
}

/** More take-overs than this within a minute are two clients with one key. */
const TAKEOVERS_MAX = 3;
const TAKEOVER_WINDOW_MS = 60_000;
/**
 * More connects than this within five minutes are a connection that does not hold; a board that wakes
 * every ten seconds has as many.
 */
const CONNECTS_MAX = 30;
const CONNECT_WINDOW_MS = 300_000;
/** Each code is told once in this time for a device. */
const QUIET_MS = 600_000;

interface Watched {
  /** Times of the last events, oldest first; one more than the bound at most. */
  readonly connects: number[];
  readonly takeovers: number[];
  flappingToldAtMs: number;
  duplicateToldAtMs: number;
}

/**
 * Notices devices whose connection flaps, and keys that two boards use. For each CONNACK one of
 * {@link connected} and {@link takenOver} is to be called. Pure; remembers `devicesMax` devices, the
 * longest quiet is forgotten first.
 */
export class IdentityWatch {
  readonly #devicesMax: number;
  readonly #now: () => number;
  readonly #devices = new Map<string, Watched>();

  /** @param now monotonic, in ms */
  constructor(devicesMax: number, now: () => number) {
    this.#devicesMax = devicesMax;
    this.#now = now;
  }

  /** Devices that are remembered. */
  get size(): number {
    return this.#devices.size;
  }

  /** A device connected that had no live connection. */
  connected(device: string, peer: WatchedPeer): IdentityFinding | null {
    const watched = this.#watch(device);
    const nowMs = this.#now();
    const count = countWithin(watched.connects, nowMs, CONNECT_WINDOW_MS, CONNECTS_MAX);
    if (count <= CONNECTS_MAX || nowMs - watched.flappingToldAtMs < QUIET_MS) return null;
    watched.flappingToldAtMs = nowMs;
    return { code: 'flapping', device, peers: [peer], count, windowS: CONNECT_WINDOW_MS / 1000 };
  }

  /** A device connected and ended its own live connection with that [MQTT-3.1.4-2]. */
  takenOver(device: string, oldPeer: WatchedPeer, newPeer: WatchedPeer): IdentityFinding | null {
    const watched = this.#watch(device);
    const nowMs = this.#now();
    const count = countWithin(watched.takeovers, nowMs, TAKEOVER_WINDOW_MS, TAKEOVERS_MAX);
    if (count <= TAKEOVERS_MAX || nowMs - watched.duplicateToldAtMs < QUIET_MS) return null;
    watched.duplicateToldAtMs = nowMs;
    const windowS = TAKEOVER_WINDOW_MS / 1000;
    return { code: 'duplicate_identity', device, peers: [oldPeer, newPeer], count, windowS };
  }

  #watch(device: string): Watched {
    const known = this.#devices.get(device);
    this.#devices.delete(device);
    for (const oldest of this.#devices.keys()) {
      if (this.#devices.size < this.#devicesMax) break;
      this.#devices.delete(oldest);
    }
    const watched = known ?? {
      connects: [],
      takeovers: [],
      flappingToldAtMs: -Infinity,
      duplicateToldAtMs: -Infinity,
    };
    this.#devices.set(device, watched);
    return watched;
  }
}

/** Adds an event. @returns how many there are within the window, `max + 1` at most. */
function countWithin(times: number[], nowMs: number, windowMs: number, max: number): number {
  while (times.length > max || (times.length > 0 && nowMs - (times[0] ?? 0) > windowMs)) {
    times.shift();
  }
  return times.push(nowMs);
}

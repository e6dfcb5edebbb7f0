import type { Duplex } from 'node:stream';
import { addressGroup } from './address-group.ts';
import type { Entry } from '../peer.ts';

/** Bounds at the door; 0 of an `address…` bound is no limit. An IPv6 address counts as its /64. */
export interface DoorLimits {
  readonly connectionsMax: number;
  readonly addressConnectionsMax: number;
  /** Connections of one address that have no CONNACK yet. */
  readonly addressUnauthenticatedMax: number;
  /** New connections a second from one address; {@link BURST_S} seconds' worth may come at once. */
  readonly addressConnectsPerS: number;
  /** From the first sight of a connection to CONNACK, TLS handshake and PROXY header included. */
  readonly connectDeadlineMs: number;
}

/** Why a connection was ended at the door; a closed set, for the metric's label. */
export type DoorRefusal =
  | 'connections_max'
  | 'address_connections_max'
  | 'address_unauthenticated_max'
  | 'address_rate'
  | 'address_banned'
  | 'proxy_header'
  | 'connect_deadline';

/** What the door asks of the rest of the broker. */
export interface DoorParts {
  readonly limits: DoorLimits;
  isBanned(address: string): boolean;
  /** Called once for each connection that the door ends. */
  refused(reason: DoorRefusal, address: string): void;
  /** Monotonic, in ms. */
  readonly now: () => number;
}

/** A place at the door whose address may not be known yet. */
export interface DoorEntry extends Entry {
  /**
   * Tells where the connection of a proxy comes from. @returns false when that address is over a bound;
   * the connection has been destroyed then.
   */
  reveal(address: string): boolean;
}

/** An address may open this many seconds' worth of connections at once: a plant after a power cut. */
export const BURST_S = 10;

interface AddressCount {
  open: number;
  unauthenticated: number;
  tokens: number;
  filledAtMs: number;
}

interface Place {
  readonly connection: Duplex;
  readonly deadline: NodeJS.Timeout;
  /** Null until a proxy has told it. */
  group: string | null;
  isAuthenticated: boolean;
}

/**
 * Where every connection is counted in before a byte of it is read, and out when it closes: in total, by
 * address, and as long as nobody knows who it is. What is over a bound, banned, or without CONNACK at the
 * deadline is destroyed here. The cost of a connection that is turned away is one accept() and one close().
 */
export class Door {
  readonly #parts: DoorParts;
  /** Addresses with connections, and those whose tokens are not full again. */
  readonly #addresses = new Map<string, AddressCount>();
  #total = 0;
  #unauthenticated = 0;
  #forgottenAtMs = 0;

  constructor(parts: DoorParts) {
    this.#parts = parts;
  }

  /** Open connections, those in their TLS handshake included. */
  get connections(): number {
    return this.#total;
  }

  /** Those of them without CONNACK. */
  get unauthenticated(): number {
    return this.#unauthenticated;
  }

  /**
   * Counts a connection in, or destroys it.
   * @param address null: a proxy will tell it, see {@link DoorEntry.reveal}.
   */
  enter(connection: Duplex, address: string | null): DoorEntry | null {
    const { limits } = this.#parts;
    if (this.#total >= limits.connectionsMax) {
      this.#refuse(connection, 'connections_max', address ?? 'unknown');
      return null;
    }
    const place: Place = {
      connection,
      group: null,
      isAuthenticated: false,
      deadline: setTimeout(() => {
        this.#refuse(connection, 'connect_deadline', place.group ?? 'unknown');
      }, limits.connectDeadlineMs),
    };
    this.#total += 1;
    this.#unauthenticated += 1;
    connection.once('close', () => this.#leave(place));
    if (address !== null && !this.#reveal(place, address)) return null;
    return {
      reveal: (told) => this.#reveal(place, told),
      authenticated: () => this.#authenticate(place),
    };
  }

  /** Destroys a connection for a reason of its listener, and counts it. */
  turnAway(connection: Duplex, reason: DoorRefusal, address: string): void {
    this.#refuse(connection, reason, address);
  }

  #reveal(place: Place, address: string): boolean {
    const group = addressGroup(address);
    const reason = this.#parts.isBanned(address) ? 'address_banned' : this.#boundReached(group);
    if (reason !== null) {
      this.#refuse(place.connection, reason, address);
      return false;
    }
    place.group = group;
    const count = this.#countOf(group);
    count.open += 1;
    count.unauthenticated += 1;
    count.tokens -= 1;
    return true;
  }

  #boundReached(group: string): DoorRefusal | null {
    const { addressConnectionsMax, addressUnauthenticatedMax, addressConnectsPerS } =
      this.#parts.limits;
    const count = this.#countOf(group);
    if (addressConnectsPerS > 0 && count.tokens < 1) return 'address_rate';
    if (addressConnectionsMax > 0 && count.open >= addressConnectionsMax) {
      return 'address_connections_max';
    }
    const isCrowded = count.unauthenticated >= addressUnauthenticatedMax;
    return addressUnauthenticatedMax > 0 && isCrowded ? 'address_unauthenticated_max' : null;
  }

  /** The count of an address with its tokens as they are now. */
  #countOf(group: string): AddressCount {
    const rate = this.#parts.limits.addressConnectsPerS;
    const nowMs = this.#parts.now();
    this.#forgetFull(nowMs);
    const known = this.#addresses.get(group);
    if (known === undefined) {
      const count = { open: 0, unauthenticated: 0, tokens: rate * BURST_S, filledAtMs: nowMs };
      this.#addresses.set(group, count);
      return count;
    }
    const gained = ((nowMs - known.filledAtMs) * rate) / 1000;
    known.tokens = Math.min(rate * BURST_S, known.tokens + gained);
    known.filledAtMs = nowMs;
    return known;
  }

  /** Looks through the addresses once in a burst's time: one without connections is full again then. */
  #forgetFull(nowMs: number): void {
    if (nowMs - this.#forgottenAtMs < BURST_S * 1000) return;
    this.#forgottenAtMs = nowMs;
    for (const [group, { open, filledAtMs }] of this.#addresses) {
      if (open === 0 && nowMs - filledAtMs >= BURST_S * 1000) this.#addresses.delete(group);
    }
  }

  #authenticate(place: Place): void {
    if (place.isAuthenticated || place.connection.destroyed) return;
    place.isAuthenticated = true;
    clearTimeout(place.deadline);
    this.#unauthenticated -= 1;
    const count = place.group === null ? undefined : this.#addresses.get(place.group);
    if (count !== undefined) count.unauthenticated -= 1;
  }

  #leave(place: Place): void {
    clearTimeout(place.deadline);
    this.#total -= 1;
    if (!place.isAuthenticated) this.#unauthenticated -= 1;
    const count = place.group === null ? undefined : this.#addresses.get(place.group);
    if (count === undefined) return;
    count.open -= 1;
    if (!place.isAuthenticated) count.unauthenticated -= 1;
    // Without a rate there are no tokens to remember.
    const { addressConnectsPerS } = this.#parts.limits;
    if (count.open === 0 && addressConnectsPerS === 0) this.#addresses.delete(place.group ?? '');
  }

  #refuse(connection: Duplex, reason: DoorRefusal, address: string): void {
    if (connection.destroyed) return;
    this.#parts.refused(reason, address);
    connection.destroy();
  }
}

import type { ConnectionState } from '../compiled-rule.ts';
import type { Outages } from './outages.ts';

/** A device, by its keys inside. */
export interface DeviceKeys {
  readonly organizationId: number;
  readonly deviceId: number;
}

/** What the connection of a device has become. */
export interface ConnectionChange extends DeviceKeys {
  readonly connection: ConnectionState;
  /** Since when, microseconds since 1970. */
  readonly atMicros: number;
  /** When the newest connection of the device began; -Infinity: it never had one. */
  readonly connectedMicros: number;
}

/** What {@link ConnectionGrace} needs. */
export interface ConnectionGraceDeps {
  readonly outages: Outages;
  /** How long devices may take to come back to us behind an outage of ours. */
  readonly graceMicros: number;
  /** Told of what rules may know; must not throw. */
  readonly onConnection: (
    device: DeviceKeys,
    connection: ConnectionState,
    atMicros: number,
  ) => void;
}

/**
 * Keeps rules from taking an outage of ours for one of the devices: when the program ends all connections
 * do. A device whose connection ended so is told of as `offline` when the grace is over and it has not come
 * back, with the time since when it is. All else is passed on at once. At most as many are held as there
 * are devices.
 */
export class ConnectionGrace {
  readonly #deps: ConnectionGraceDeps;
  /** Devices that may come back, by id, and since when they are gone. */
  readonly #held = new Map<number, { readonly device: DeviceKeys; readonly atMicros: number }>();

  /** Devices that have come back within the grace: a stored row may be older than that. */
  readonly #returned = new Set<number>();

  constructor(deps: ConnectionGraceDeps) {
    this.#deps = deps;
  }

  /** Devices that may come back. */
  get heldDevices(): number {
    return this.#held.size;
  }

  /** Notes a change, in order for each device. */
  changed({ connection, atMicros, connectedMicros, ...device }: ConnectionChange): void {
    const { outages } = this.#deps;
    const isOurs =
      outages.isDown || (connectedMicros < outages.backMicros && !this.#isOver(atMicros));
    const { deviceId } = device;
    if (connection === 'offline') this.#returned.delete(deviceId);
    else if (!this.#isOver(atMicros)) this.#returned.add(deviceId);
    if (connection === 'offline' && isOurs) {
      this.#held.set(deviceId, { device, atMicros });
      return;
    }
    this.#held.delete(deviceId);
    this.#deps.onConnection(device, connection, atMicros);
  }

  /**
   * What a connection that was stored is to be taken for: one that has ended in an outage of ours goes on
   * until the grace is over. The grace of an outage that ends in another one begins anew.
   * @param sinceMicros since when it is what it is.
   */
  loaded(
    device: DeviceKeys,
    connection: ConnectionState,
    { sinceMicros, nowMicros }: { readonly sinceMicros: number; readonly nowMicros: number },
  ): ConnectionState {
    if (connection !== 'offline' || this.#isOver(nowMicros)) return connection;
    const { backMicros } = this.#deps.outages;
    if (sinceMicros < this.#troubledMicros() || sinceMicros > backMicros) return connection;
    const { deviceId } = device;
    if (!this.#returned.has(deviceId)) this.#held.set(deviceId, { device, atMicros: sinceMicros });
    return 'online';
  }

  /** Lets go of a device that was deleted. */
  forget(deviceId: number): void {
    this.#held.delete(deviceId);
    this.#returned.delete(deviceId);
  }

  /** Tells of those that have not come back, once the grace is over. To be called now and then. */
  tick(nowMicros: number): void {
    if (this.#held.size === 0 && this.#returned.size === 0) return;
    if (this.#deps.outages.isDown || !this.#isOver(nowMicros)) return;
    const held = [...this.#held.values()];
    this.#held.clear();
    this.#returned.clear();
    for (const { device, atMicros } of held) this.#deps.onConnection(device, 'offline', atMicros);
  }

  /** Since when one outage of ours came before the grace of the other was over; Infinity without one. */
  #troubledMicros(): number {
    const { outages, graceMicros } = this.#deps;
    let sinceMicros = Infinity;
    for (const { downMicros, backMicros } of outages.past.toReversed()) {
      if (sinceMicros < Infinity && backMicros + graceMicros < sinceMicros) break;
      sinceMicros = downMicros;
    }
    return sinceMicros;
  }

  #isOver(nowMicros: number): boolean {
    const { outages, graceMicros } = this.#deps;
    return nowMicros > outages.backMicros + graceMicros;
  }
}

/** Bounds on connections; 0 for an address is no limit. */
export interface ConnectionLimits {
  readonly connectionsMax: number;
  readonly addressConnectionsMax: number;
}

/** Counts open connections, in total and by remote address. */
export class ConnectionCounts {
  readonly #limits: ConnectionLimits;
  readonly #byAddress = new Map<string, number>();
  #total = 0;

  constructor(limits: ConnectionLimits) {
    this.#limits = limits;
  }

  /** Open connections. */
  get total(): number {
    return this.#total;
  }

  /** Counts a connection in; the answer says which bound forbids it, and then it is not counted. */
  add(address: string): 'connections_max' | 'address_connections_max' | null {
    const { connectionsMax, addressConnectionsMax } = this.#limits;
    const open = this.#byAddress.get(address) ?? 0;
    if (this.#total >= connectionsMax) return 'connections_max';
    if (addressConnectionsMax > 0 && open >= addressConnectionsMax)
      return 'address_connections_max';
    this.#total += 1;
    this.#byAddress.set(address, open + 1);
    return null;
  }

  /** Counts a connection out that {@link add} has counted in. */
  remove(address: string): void {
    const open = this.#byAddress.get(address) ?? 0;
    this.#total -= 1;
    if (open > 1) this.#byAddress.set(address, open - 1);
    else this.#byAddress.delete(address);
  }
}

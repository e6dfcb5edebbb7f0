import type { IncomingMessage } from 'node:http';
import { BlockList, isIP } from 'node:net';
import { plainAddress } from './address-group.ts';

/** Longest list of an X-Forwarded-For that is looked through; nobody has more proxies in a row. */
const FORWARDED_MAX = 32;

/** The proxies whose word on the address of a client is taken. */
export class TrustedProxies {
  readonly #list = new BlockList();
  /** True when there is none. */
  readonly isEmpty: boolean;

  /** @param text addresses and networks (`10.0.0.0/8`) with commas between, as the settings have checked them. */
  constructor(text: string) {
    const entries = text.split(/[\s,]+/).filter((entry) => entry !== '');
    for (const entry of entries) {
      const [address = '', prefix] = entry.split('/');
      const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
      if (prefix === undefined) this.#list.addAddress(address, family);
      else this.#list.addSubnet(address, Number(prefix), family);
    }
    this.isEmpty = entries.length === 0;
  }

  /** Whether an address is one of the proxies. */
  has(address: string): boolean {
    if (this.isEmpty) return false;
    const family = isIP(address);
    return family !== 0 && this.#list.check(address, family === 6 ? 'ipv6' : 'ipv4');
  }

  /**
   * Where an HTTP request comes from: its peer, or, when that is a proxy, the last address of
   * `X-Forwarded-For` that is not one. What is no address ends the search, because whoever is in front of
   * it may have made it up.
   */
  clientOf(request: Pick<IncomingMessage, 'headers' | 'socket'>): string {
    let client = plainAddress(request.socket.remoteAddress);
    if (!this.has(client)) return client;
    const header = request.headers['x-forwarded-for'];
    const hops = (Array.isArray(header) ? header.join() : (header ?? '')).split(',');
    for (const hop of hops.slice(-FORWARDED_MAX).toReversed()) {
      const address = readHop(hop.trim());
      if (address === null) break;
      client = address;
      if (!this.has(client)) break;
    }
    return client;
  }
}

/** Some proxies add the port: `192.0.2.1:4711`, `[2001:db8::1]:4711`. */
function readHop(hop: string): string | null {
  const bare = /^\[(.+)\](?::\d+)?$/.exec(hop)?.[1] ?? /^([\d.]+):\d+$/.exec(hop)?.[1] ?? hop;
  return isIP(bare) === 0 ? null : plainAddress(bare);
}

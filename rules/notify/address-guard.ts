import ipaddr from 'ipaddr.js';
import { AddressRefusedError } from '../../rule-errors.ts';
import type { ReceiverFinding } from './message.ts';
import { unlessAborted, type Resolve } from './resolve-host.ts';

/** What decides on where notifications may go. */
export interface AddressRules {
  /** Networks and addresses that are allowed though they are not public: `10.20.0.0/16, fd00::7`. */
  readonly privateAddresses: string;
  /** Whether `http:` is allowed beside `https:`. */
  readonly isHttpAllowed: boolean;
  readonly resolve: Resolve;
}

type Address = ipaddr.IPv4 | ipaddr.IPv6;
type Network = ReturnType<typeof ipaddr.parseCIDR>;

/** Of a host that is given as a number in any spelling, or as a name. */
const HOST_TEXT = /^[^\s/?#@\\%]{1,253}$/;
/** A public address that answers only to machines of one cloud, with keys of theirs: Azure's. */
const METADATA_ADDRESSES = new Set(['168.63.129.16']);
/** Names under which clouds keep the keys of their machines. */
const METADATA_NAMES =
  /^(?:metadata(?:\.google\.internal|\.goog)?|instance-data(?:\.ec2\.internal)?)$/;
const LOOPBACK_NAMES = /(?:^|\.)(?:localhost|localhost\.localdomain|ip6-localhost|ip6-loopback)$/;
/** Only here are public IPv6 addresses. */
const GLOBAL_UNICAST = ipaddr.parseCIDR('2000::/3');
/** A network without IPv4 reaches it through these; what counts is the address inside. */
const NAT64 = ipaddr.parseCIDR('64:ff9b::/96');

/**
 * Ports that no receiver has and other things do: those that browsers refuse (Fetch, "bad port"), and
 * databases, caches, queues and control interfaces that take a request for one of theirs.
 */
const REFUSED_PORTS: ReadonlySet<number> = new Set([
  1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102,
  103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 445,
  465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 873, 989,
  990, 993, 995, 1433, 1521, 1719, 1720, 1723, 1883, 2049, 2181, 2375, 2376, 2379, 2380, 3306, 3389,
  3659, 4045, 4222, 4190, 5060, 5061, 5432, 5433, 5672, 5900, 6000, 6379, 6380, 6432, 6566, 6665,
  6666, 6667, 6668, 6669, 6679, 6697, 7000, 7001, 8883, 9042, 9092, 9100, 9200, 9300, 10_080,
  10_250, 10_255, 11_211, 27_017, 27_018,
]);
/** Whoever saves a receiver does not wait longer. */
const LOOKUP_MS_MAX = 5000;
const MAIL_PORTS: ReadonlySet<number> = new Set([25, 465, 587]);

/**
 * Decides on where notifications may go, so that no receiver makes this program ask what only it can
 * reach: public addresses, and those that the operator has named. Asked twice: when a receiver is saved,
 * and for each connection, with the addresses that it is made to.
 */
export class AddressGuard {
  readonly #rules: AddressRules;
  readonly #allowed: readonly Network[];

  constructor(rules: AddressRules) {
    this.#rules = rules;
    this.#allowed = rules.privateAddresses
      .split(/[\s,]+/)
      .filter((entry) => entry !== '')
      .map((entry) => readNetwork(entry));
  }

  /**
   * Why no request may be sent to a URL, as far as that can be told without asking DNS: scheme, user,
   * host, port. Never says more of the URL than its scheme, host and port.
   * @returns null when it may.
   */
  urlFault(text: string): string | null {
    const url = URL.canParse(text) ? new URL(text) : null;
    if (url === null) return 'it is not a URL';
    if (url.protocol === 'http:') {
      if (!this.#rules.isHttpAllowed) return 'it must begin with https:// (NOTIFY_HTTP_ALLOWED)';
    } else if (url.protocol !== 'https:') return 'it must begin with https://';
    if (url.username !== '' || url.password !== '') return 'it must not have a user or a password';
    const port = url.port === '' ? 443 : Number(url.port);
    if (REFUSED_PORTS.has(port)) return `port ${port} is refused`;
    return this.hostFault(url.hostname);
  }

  /** Why no mail may be handed to a server, as {@link urlFault}. */
  mailServerFault(host: string, port: number): string | null {
    if (!MAIL_PORTS.has(port) && (port < 1024 || REFUSED_PORTS.has(port))) {
      return `port ${port} is refused`;
    }
    return this.hostFault(host);
  }

  /** Why a host is refused by its name, or by the address that it is. Null: it is not. */
  hostFault(host: string): string | null {
    const canonical = canonicalHost(host);
    if (canonical === null) return 'its host is malformed';
    const address = readAddress(canonical);
    if (address !== null) return this.addressFault(canonical);
    if (METADATA_NAMES.test(canonical)) return `the host ${canonical} is refused`;
    if (LOOPBACK_NAMES.test(canonical)) return this.addressFault('127.0.0.1');
    return null;
  }

  /** Why nothing may be sent to an address; null when it may. What is no address is refused. */
  addressFault(text: string): string | null {
    const written = readAddress(text);
    if (written === null) return 'it has no address';
    const address = isIn(written, NAT64) ? ipv4Inside(written) : written;
    if (this.#allowed.some((network) => isIn(address, network))) return null;
    const kind = refusedKind(address);
    return kind === null
      ? null
      : `it is not public (${kind}); NOTIFY_PRIVATE_ADDRESSES can allow it`;
  }

  /**
   * Looks a host up, once, and checks every address that it has.
   * @returns its addresses, at least one; connect to these and look nothing up again.
   * @throws {AddressRefusedError} when one of them is refused.
   * @throws what the lookup throws, when the name has none.
   */
  async resolve(host: string): Promise<readonly string[]> {
    const canonical = canonicalHost(host) ?? '';
    const fault = this.hostFault(host);
    if (fault !== null) throw new AddressRefusedError(fault, true);
    if (readAddress(canonical) !== null) return [canonical];
    const addresses = await this.#rules.resolve(canonical);
    for (const address of addresses.length === 0 ? [''] : addresses) {
      const refusal = this.addressFault(address);
      if (refusal !== null) throw new AddressRefusedError(refusal, false);
    }
    return addresses;
  }

  /** As {@link resolve}, for what is being saved: a name that does not resolve within 5 s is warned of. */
  async lookupFinding(host: string): Promise<ReceiverFinding> {
    try {
      await unlessAborted(this.resolve(host), AbortSignal.timeout(LOOKUP_MS_MAX));
      return { fault: null, warning: null };
    } catch (err) {
      return err instanceof AddressRefusedError
        ? { fault: err.fault, warning: null }
        : { fault: null, warning: 'its host does not resolve now; nothing arrives until it does' };
    }
  }
}

/**
 * A host as browsers write it: `0x7f.1`, `2130706433` and `127.1` become `127.0.0.1`, names lower case
 * and ASCII, without a dot at the end; an IPv6 address without brackets.
 * @returns null when it is none.
 */
export function canonicalHost(host: string): string | null {
  if (!HOST_TEXT.test(host)) return null;
  const url = `http://${host.includes(':') && !host.startsWith('[') ? `[${host}]` : host}/`;
  if (!URL.canParse(url)) return null;
  const { hostname, port } = new URL(url);
  if (port !== '') return null;
  const bare = hostname.replace(/^\[(.*)\]$/, '$1').replace(/\.$/, '');
  return bare === '' ? null : bare;
}

function readNetwork(entry: string): Network {
  if (entry.includes('/')) return ipaddr.parseCIDR(entry);
  const address = ipaddr.parse(entry);
  return [address, address.kind() === 'ipv4' ? 32 : 128];
}

function readAddress(text: string): Address | null {
  if (ipaddr.IPv4.isValidFourPartDecimal(text)) return ipaddr.IPv4.parse(text);
  return text.includes(':') && ipaddr.IPv6.isValid(text) ? ipaddr.IPv6.parse(text) : null;
}

function isIn(address: Address, network: Network): boolean {
  return address.kind() === network[0].kind() && address.match(network);
}

function ipv4Inside(address: Address): Address {
  return new ipaddr.IPv4(address.toByteArray().slice(12));
}

/** What an address is, when it is not public. Ways to write IPv4 inside IPv6 are refused as a whole. */
function refusedKind(address: Address): string | null {
  if (METADATA_ADDRESSES.has(address.toString())) return 'metadata';
  const range = address.range();
  if (range !== 'unicast') return range;
  return address.kind() === 'ipv6' && !isIn(address, GLOBAL_UNICAST) ? 'not global' : null;
}

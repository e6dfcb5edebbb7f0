import { isIPv6 } from 'node:net';

/** A client of a dual-stack listener has its IPv4 address mapped into IPv6. */
const MAPPED = /^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i;

/** An IPv4 client of a dual-stack listener counts as its IPv4 address; a missing one is `unknown`. */
export function plainAddress(address: string | undefined): string {
  return (address ?? 'unknown').replace(MAPPED, '');
}

/**
 * What counts as one client: an IPv4 address, or the /64 of an IPv6 address, because whoever has one
 * address of it has all 2^64. Anything else is its own group.
 */
export function addressGroup(address: string): string {
  if (!isIPv6(address)) return address;
  const [head = '', tail] = (address.split('%', 1)[0] ?? '').split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  // An IPv4 address at the end stands for two groups; it never reaches into the first four of them.
  const rightGroups = right.length + (tail?.includes('.') === true ? 1 : 0);
  const zeros = tail === undefined ? 0 : 8 - left.length - rightGroups;
  const groups = [...left, ...Array.from({ length: zeros }, () => '0'), ...right].slice(0, 4);
  return `${groups.map((group) => Number.parseInt(group, 16).toString(16)).join(':')}::/64`;
}

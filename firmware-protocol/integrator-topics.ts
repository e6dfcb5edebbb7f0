import { ORGANIZATION_STREAMS, type Scope } from './contract.ts';
import { topicFilterFault } from './topics.ts';

/** Most filters that one filter of a SUBSCRIBE may stand for: all channels of 100 devices are 1200. */
export const EXPANDED_FILTERS_MAX = 2000;

/** What an integrator's key says of its rights to read. */
export interface IntegratorRights {
  /** Slug of the organization, as it stands in topics. */
  readonly organization: string;
  readonly scopes: readonly Scope[];
  /** Slugs of the only devices that it may see; null for all of the organization. */
  readonly devices: readonly string[] | null;
}

/**
 * What of a device each scope may read, after `v1/{organization}/{device}/`. Never `key`, `in/key`
 * and `in/hello`: they are between the device and the broker.
 */
const CHANNELS: Readonly<Record<Scope, readonly string[]>> = {
  data: ['data'],
  status: ['status'],
  event: ['event/+'],
  log: ['log'],
  alert: ['alert/+'],
  cmd: ['cmd/+'],
  'cmd:write': [],
  raw: ['hello', 'ack', 'cfg', 'in/cmd', 'in/cfg', 'in/err'],
};

/**
 * Decides on one filter of an integrator's SUBSCRIBE. It must begin with `v1/{organization}/`, without
 * a wildcard there. A filter that asks for more than the key may see is narrowed: `v1/acme/#` becomes
 * what the scopes allow, and of a key for certain devices that of these devices. Streams of the
 * organization itself, `v1/{organization}/_/…`, need the scope `status` and a key for all devices;
 * a `+` in place of the device does not ask for them.
 * @returns the filters to subscribe instead, at most {@link EXPANDED_FILTERS_MAX}; no topic matches
 * two. Null when nothing or more than that is left (SUBACK 0x80 [MQTT-3.8.4-5]).
 */
export function authorizeIntegratorFilter(
  filter: string,
  rights: IntegratorRights,
): string[] | null {
  if (topicFilterFault(filter) !== null) return null;
  const root = `v1/${rights.organization}/`;
  if (!filter.startsWith(root)) return null;
  const asked = filter.slice(root.length);
  const granted = [...streamFilters(asked, rights), ...deviceFilters(asked, rights)];
  if (granted.length === 0 || granted.length > EXPANDED_FILTERS_MAX) return null;
  return granted.map((one) => root + one);
}

/**
 * The filter that matches exactly the topics that both filters match, `$` topics included
 * [MQTT-4.7.2-1]. Both must be well-formed [MQTT-4.7.1-2, MQTT-4.7.1-3].
 * @returns null when no topic matches both.
 */
export function intersectFilters(left: string, right: string): string | null {
  const lefts = left.split('/');
  const rights = right.split('/');
  const levels: string[] = [];
  for (let at = 0; at < lefts.length || at < rights.length; at += 1) {
    const [one, other] = [lefts[at], rights[at]];
    if (at === 0 && isHiddenFromWildcard(one, other)) return null;
    // `#` stands for the parent too: when the other filter has ended there, it is the whole answer.
    if (one === '#') return [...levels, ...rights.slice(at)].join('/');
    if (other === '#') return [...levels, ...lefts.slice(at)].join('/');
    const level = intersectLevels(one, other);
    if (level === null) return null;
    levels.push(level);
  }
  return levels.join('/');
}

/** What is granted of the organization's own streams. All here is written behind `v1/{organization}/`. */
function streamFilters(asked: string, { scopes, devices }: IntegratorRights): string[] {
  if (devices !== null || !scopes.includes('status')) return [];
  if (asked !== '#' && !asked.startsWith(`${ORGANIZATION_STREAMS}/`)) return [];
  return [intersectFilters(asked, `${ORGANIZATION_STREAMS}/#`) ?? []].flat();
}

/** What is granted of devices: each that is asked for, with each channel that is asked for and allowed. */
function deviceFilters(asked: string, { scopes, devices }: IntegratorRights): string[] {
  const slash = asked.indexOf('/');
  const device = slash < 0 ? asked : asked.slice(0, slash);
  // `+` stands for devices: the organization's own streams are not among them.
  if (device === ORGANIZATION_STREAMS) return [];
  if (slash < 0 && device !== '#') return [];
  const channels = allowedChannels(slash < 0 ? '#' : asked.slice(slash + 1), scopes);
  if (channels.length === 0) return [];
  const filters: string[] = [];
  for (const one of askedDevices(device, devices)) {
    for (const channel of channels) filters.push(`${one}/${channel}`);
  }
  return filters;
}

function askedDevices(asked: string, devices: readonly string[] | null): Iterable<string> {
  if (asked === '+' || asked === '#') return new Set(devices ?? ['+']);
  return devices === null || devices.includes(asked) ? [asked] : [];
}

function allowedChannels(asked: string, scopes: readonly Scope[]): string[] {
  const channels = [...new Set(scopes)].flatMap((scope) => CHANNELS[scope]);
  return channels.flatMap((channel) => intersectFilters(asked, channel) ?? []);
}

function intersectLevels(one: string | undefined, other: string | undefined): string | null {
  if (one === undefined || other === undefined) return null;
  if (one === other || other === '+') return one;
  return one === '+' ? other : null;
}

/** A wildcard at the first level does not match topics that begin with `$`. */
function isHiddenFromWildcard(one = '', other = ''): boolean {
  const isWild = (level: string): boolean => level === '+' || level === '#';
  return (isWild(one) && other.startsWith('$')) || (isWild(other) && one.startsWith('$'));
}

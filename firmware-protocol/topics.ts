// HOT PATH: 0.1 µs per PUBLISH for topicNameFault and readUplinkTopic; the rest once per SUBSCRIBE
import {
  EVENT_NAME,
  FOREIGN_CHANNELS,
  RETAINED_INBOX_TOPICS,
  TOPIC_BYTES_MAX,
  TOPIC_LEVELS_MAX,
  UPLINK_CHANNELS,
} from './contract.ts';
import { isMetricName } from './metric-name.ts';

/** Names of a device, as its key says them. They fit ORGANIZATION_NAME and DEVICE_NAME. */
export interface DeviceIdentity {
  organization: string;
  device: string;
}

/** Channel of an accepted PUBLISH; `scalar` is `data/{metric}`. */
export type UplinkChannel = (typeof UPLINK_CHANNELS)[number] | 'scalar';

/** A topic that a device may publish to. */
export interface UplinkTopic {
  channel: UplinkChannel;
  /** Metric of `scalar`, name of `event`, else null. */
  name: string | null;
  /** Whether the device wrote `v1/me/…`. */
  alias: boolean;
}

/** Why a device may not publish to a topic. */
export interface TopicRefusal {
  code: 'forbidden' | 'unknown_channel' | 'bad_name';
}

/** A subscription that is granted to a device. */
export interface GrantedFilter {
  /** Whether the device wrote `v1/me/…` and so wants to be answered under it. */
  alias: boolean;
  /** The exact canonical topics that the filter stands for; no wildcards. */
  topics: string[];
}

const ALIAS_PREFIX = 'v1/me/';
const INBOX_WORD = /^[a-z][a-z0-9_.-]{0,31}$/;
const plainChannels: ReadonlySet<string> = new Set(
  UPLINK_CHANNELS.filter((channel) => channel !== 'event'),
);
const foreignChannels: ReadonlySet<string> = new Set(FOREIGN_CHANNELS);

/**
 * Says why a text is no topic name: empty, too long, too many levels, wildcards, control characters,
 * U+0000, U+FFFD (what broken UTF-8 decodes to), halves of surrogate pairs [MQTT-1.5.3, MQTT-3.3.2-2].
 * @returns null when it is one.
 */
export function topicNameFault(topic: string): string | null {
  if (topic.includes('+') || topic.includes('#')) return 'wildcard in a topic name';
  return textFault(topic);
}

/**
 * Says why a text is no topic filter that Puback takes: as for a name, but with `+` as a whole level and
 * `#` as the last one [MQTT-4.7.1]. Filters that start with `$`, shared ones among them, are refused.
 * @returns null when it is one.
 */
export function topicFilterFault(filter: string): string | null {
  const fault = textFault(filter);
  if (fault !== null) return fault;
  if (filter.startsWith('$')) return 'starts with $';
  const levels = filter.split('/');
  for (const [index, level] of levels.entries()) {
    if (level.length > 1 && (level.includes('+') || level.includes('#'))) {
      return 'wildcard inside a level';
    }
    if (level === '#' && index < levels.length - 1) return '# before the last level';
  }
  return null;
}

/**
 * Reads the topic of a PUBLISH, or of a will, of a device. Both spellings are taken, `v1/me/…` and
 * `v1/{organization}/{device}/…`. The topic must have no {@link topicNameFault}.
 * @returns a refusal for another's tree or a downlink topic of its own (`forbidden`), a channel that
 * does not exist (`unknown_channel`), or a metric or event whose name is malformed (`bad_name`).
 */
export function readUplinkTopic(
  topic: string,
  identity: DeviceIdentity,
): UplinkTopic | TopicRefusal {
  const start = ownPrefixLength(topic, identity);
  if (start === 0) return { code: 'forbidden' };
  const alias = topic.startsWith(ALIAS_PREFIX);
  const rest = topic.slice(start);
  if (plainChannels.has(rest)) return { channel: rest as UplinkChannel, name: null, alias };
  const slash = rest.indexOf('/');
  const word = slash < 0 ? rest : rest.slice(0, slash);
  if (foreignChannels.has(word)) return { code: 'forbidden' };
  const name = slash < 0 ? '' : rest.slice(slash + 1);
  if (word === 'data') {
    return isMetricName(name) ? { channel: 'scalar', name, alias } : { code: 'bad_name' };
  }
  if (word === 'event') {
    return EVENT_NAME.test(name) ? { channel: 'event', name, alias } : { code: 'bad_name' };
  }
  return { code: 'unknown_channel' };
}

/** Tells an {@link UplinkTopic} from a {@link TopicRefusal}. */
export function isTopicRefusal(topic: UplinkTopic | TopicRefusal): topic is TopicRefusal {
  return 'code' in topic;
}

/**
 * Decides on one filter of a device's SUBSCRIBE. Granted are its own `in/{word}`, `in/+`, `in/#` and
 * `status`, in either spelling. `in/+` and `in/#` stand for the two retained topics only: what else is
 * sent under `in/` is written to the connection and needs no subscription.
 * @returns null when it is not granted (SUBACK 0x80 [MQTT-3.8.4-5]).
 */
export function authorizeDeviceFilter(
  filter: string,
  identity: DeviceIdentity,
): GrantedFilter | null {
  if (topicFilterFault(filter) !== null) return null;
  const start = ownPrefixLength(filter, identity);
  if (start === 0) return null;
  const rests = exactTopics(filter.slice(start));
  if (rests === null) return null;
  return {
    alias: filter.startsWith(ALIAS_PREFIX),
    topics: rests.map((rest) => canonicalTopic(identity, rest)),
  };
}

/** `v1/{organization}/{device}/{rest}`: how everybody but the device itself spells the topic. */
export function canonicalTopic(identity: DeviceIdentity, rest: string): string {
  return `v1/${identity.organization}/${identity.device}/${rest}`;
}

/** `v1/me/{rest}`: how the firmware of any device may spell its topics. */
export function aliasTopic(rest: string): string {
  return ALIAS_PREFIX + rest;
}

/** Respells a canonical topic of this device as `v1/me/…`. Any other topic is returned as it is. */
export function aliasOf(topic: string, identity: DeviceIdentity): string {
  const start = ownPrefixLength(topic, identity);
  return start === 0 ? topic : aliasTopic(topic.slice(start));
}

function exactTopics(rest: string): readonly string[] | null {
  if (rest === 'in/+' || rest === 'in/#') return RETAINED_INBOX_TOPICS;
  if (rest === 'status') return ['status'];
  return rest.startsWith('in/') && INBOX_WORD.test(rest.slice(3)) ? [rest] : null;
}

/** Length of `v1/me/` or `v1/{organization}/{device}/` at the start of a topic; 0 for any other tree. */
function ownPrefixLength(topic: string, { organization, device }: DeviceIdentity): number {
  if (topic.startsWith(ALIAS_PREFIX)) return ALIAS_PREFIX.length;
  const deviceAt = 4 + organization.length;
  const restAt = deviceAt + device.length + 1;
  const isOwn =
    topic.startsWith('v1/') &&
    topic.startsWith(organization, 3) &&
    topic.charCodeAt(deviceAt - 1) === 0x2f &&
    topic.startsWith(device, deviceAt) &&
    topic.charCodeAt(restAt - 1) === 0x2f;
  return isOwn ? restAt : 0;
}

function textFault(text: string): string | null {
  if (text.length === 0) return 'empty';
  if (text.length > TOPIC_BYTES_MAX) return 'too long';
  let levels = 1;
  let bytes = 0;
  for (let at = 0; at < text.length; at += 1) {
    const char = text.charCodeAt(at);
    if (char === 0x2f) levels += 1;
    if (char < 0x20 || (char >= 0x7f && char < 0xa0)) return 'control character';
    if (char === 0xfffd) return 'not UTF-8';
    const isPair = char >= 0xd800 && char <= 0xdbff && isLowSurrogate(text.charCodeAt(at + 1));
    if (char >= 0xd800 && char <= 0xdfff && !isPair) return 'half of a surrogate pair';
    if (isPair) at += 1;
    bytes += char < 0x80 ? 1 : char < 0x800 ? 2 : isPair ? 4 : 3;
  }
  if (bytes > TOPIC_BYTES_MAX) return 'too long';
  return levels > TOPIC_LEVELS_MAX ? 'too many levels' : null;
}

function isLowSurrogate(char: number): boolean {
  return char >= 0xdc00 && char <= 0xdfff;
}

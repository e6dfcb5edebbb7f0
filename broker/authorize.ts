// HOT PATH: see bench/RESULTS.md
import { Refusal } from '../firmware-protocol/contract.ts';
import {
  authorizeDeviceFilter,
  isTopicRefusal,
  readUplinkTopic,
  topicNameFault,
  type TopicRefusal,
  type UplinkTopic,
} from '../firmware-protocol/topics.ts';
import type { Session } from './session.ts';

/** How ingest is to take a publication. */
export interface Intake {
  readonly channel: 'data' | 'scalar' | 'refused';
  readonly metric: string | null;
  readonly refusal: Refusal | null;
}

/** Topics that a session remembers its verdict on; a device has few, and a fuzzer gets no memory. */
const INTAKES_MAX = 64;
/** Filters of one session; a device needs one. More are not granted. */
const FILTERS_MAX = 64;
const DATA: Intake = { channel: 'data', metric: null, refusal: null };

/**
 * Decides on the topic of a PUBLISH. A forbidden topic is an answer and not an end: the message goes to
 * quarantine and is acknowledged, or a device would resend it for ever. So do channels that this
 * version does not read yet, so that nothing is lost.
 * @returns null for a topic that no client may send at all [MQTT-1.5.3-2]: the connection is closed.
 */
export function authorizeTopic(session: Session, topic: string): Intake | null {
  const known = session.intakes.get(topic);
  if (known !== undefined) return known;
  const fault = topicNameFault(topic);
  if (fault !== null && fault !== 'too long' && fault !== 'too many levels') return null;
  const verdict: UplinkTopic | TopicRefusal =
    fault === null ? readUplinkTopic(topic, session.principal) : { code: 'forbidden' };
  if (!isTopicRefusal(verdict)) session.usesAlias = verdict.alias;
  const intake = intakeOf(verdict);
  if (session.intakes.size >= INTAKES_MAX) session.intakes.clear();
  session.intakes.set(topic, intake);
  return intake;
}

function intakeOf(verdict: UplinkTopic | TopicRefusal): Intake {
  if (isTopicRefusal(verdict)) return refuse(new Refusal(verdict.code, REASONS[verdict.code]));
  if (verdict.channel === 'data') return DATA;
  if (verdict.channel === 'scalar') {
    return { channel: 'scalar', metric: verdict.name, refusal: null };
  }
  return refuse(new Refusal('unknown_channel', `${verdict.channel} is not read by this version`));
}

const REASONS: Readonly<Record<TopicRefusal['code'], string>> = {
  forbidden: 'the topic is not one that this device may publish to',
  unknown_channel: 'the channel does not exist',
  bad_name: 'the name in the topic is not valid',
};

function refuse(refusal: Refusal): Intake {
  return { channel: 'refused', metric: null, refusal };
}

/**
 * Decides on one filter of a SUBSCRIBE and remembers what it stands for.
 * @returns the exact canonical topics, or null when it is not granted (SUBACK 0x80 [MQTT-3.8.4-5]).
 */
export function authorizeFilter(session: Session, filter: string): string[] | null {
  const granted = authorizeDeviceFilter(filter, session.principal);
  if (granted === null) return null;
  const isNew = !session.expandedFilters.has(filter);
  if (isNew && session.expandedFilters.size >= FILTERS_MAX) return null;
  session.usesAlias = granted.alias;
  session.expandedFilters.set(filter, granted.topics);
  return granted.topics;
}

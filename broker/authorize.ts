// HOT PATH: once for each new topic of a connection
import { Refusal } from '../firmware-protocol/contract.ts';
import {
  isTopicRefusal,
  readUplinkTopic,
  topicNameFault,
  type DeviceIdentity,
  type TopicRefusal,
  type UplinkTopic,
} from '../firmware-protocol/topics.ts';
import type { Intake } from './access.ts';

/** A verdict on a topic of a device. */
export interface DeviceIntake {
  readonly intake: Intake;
  /** How the device spells its topics; null when the topic does not tell. */
  readonly usesAlias: boolean | null;
}

/** What is read of the channels without a name. */
const PLAIN: ReadonlyMap<string, Intake> = new Map(
  (['data', 'senml', 'log', 'hello', 'ack', 'cfg', 'key'] as const).map((channel) => [
    channel,
    { channel, name: null, refusal: null, word: channel },
  ]),
);
/** Longest word that a client is told of its own topic. */
const WORD_CHARS_MAX = 32;

/**
 * Decides on the topic of a PUBLISH of a device. A forbidden topic is an answer and not an end: the
 * message goes to quarantine and is acknowledged, or a device would resend it for ever. So do channels
 * that this version does not know, so that nothing is lost.
 * @returns null for a topic that no client may send at all [MQTT-1.5.3-2]: the connection is closed.
 */
export function deviceIntake(topic: string, identity: DeviceIdentity): DeviceIntake | null {
  const fault = topicNameFault(topic);
  if (fault !== null && fault !== 'too long' && fault !== 'too many levels') return null;
  const verdict: UplinkTopic | TopicRefusal =
    fault === null ? readUplinkTopic(topic, identity) : { code: 'forbidden' };
  return {
    intake: intakeOf(verdict, channelWord(topic)),
    usesAlias: isTopicRefusal(verdict) ? null : verdict.alias,
  };
}

function intakeOf(verdict: UplinkTopic | TopicRefusal, word: string): Intake {
  if (isTopicRefusal(verdict)) {
    return refuse(new Refusal(verdict.code, REASONS[verdict.code]), word);
  }
  const { channel, name } = verdict;
  if (channel === 'scalar' || channel === 'event') return { channel, name, refusal: null, word };
  const plain = PLAIN.get(channel);
  if (plain !== undefined) return plain;
  const detail = `${channel} is not read by this version`;
  return refuse(new Refusal('unknown_channel', detail), word);
}

/** What stands behind `v1/me/` or `v1/{organization}/{device}/`. */
function channelWord(topic: string): string {
  const levels = topic.split('/');
  return (levels[levels[1] === 'me' ? 2 : 3] ?? '').slice(0, WORD_CHARS_MAX);
}

const REASONS: Readonly<Record<TopicRefusal['code'], string>> = {
  forbidden: 'the topic is not one that this device may publish to',
  unknown_channel: 'the channel does not exist',
  bad_name: 'the name in the topic is not valid',
};

function refuse(refusal: Refusal, word: string): Intake {
  return { channel: 'refused', name: null, refusal, word };
}

import { createHash } from 'node:crypto';

/** Names that the topic of an alert is made of. */
export interface AlertTopicNames {
  /** Slugs, as they stand in topics. */
  readonly organization: string;
  readonly device: string;
  /** Name of the rule. */
  readonly rule: string;
  /** Empty when the rule does not group. */
  readonly groupKey: string;
}

/** What is left of TOPIC_BYTES_MAX behind the longest `v1/{organization}/{device}/alert/`. */
const LEVEL_BYTES_MAX = 45;
const GROUP_BYTES_MAX = 16;
const HASH_CHARS = 6;

/**
 * The topic of an alert: `v1/{organization}/{device}/alert/{rule}`, with `.{group key}` behind it when
 * the rule groups; names as {@link topicWord} writes them. At most 128 bytes.
 */
export function alertTopic({ organization, device, rule, groupKey }: AlertTopicNames): string {
  const group = groupKey === '' ? '' : `.${topicWord(groupKey, GROUP_BYTES_MAX)}`;
  const word = topicWord(rule, LEVEL_BYTES_MAX - group.length);
  return `v1/${organization}/${device}/alert/${word}${group}`;
}

/**
 * A name as one word of a topic: lower case, without accents, `-` for all that is no letter or digit of
 * ASCII. What is too long, or has no such letter, ends in a part of its SHA-256. Two names may become the
 * same word: `Too hot` and `too-hot`.
 */
export function topicWord(name: string, bytesMax: number): string {
  const plain = name
    .normalize('NFKD')
    .replace(/\p{M}+/gu, '')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '');
  if (plain !== '' && plain.length <= bytesMax) return plain;
  const hash = createHash('sha256').update(name).digest('hex').slice(0, HASH_CHARS);
  const head = plain.slice(0, bytesMax - HASH_CHARS - 1).replace(/-+$/, '');
  return head === '' ? hash : `${head}-${hash}`;
}
